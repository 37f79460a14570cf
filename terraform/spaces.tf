# The three buckets: Terraform's own state, the applications' files, the backups.

# The state bucket has to be there before `terraform init`: the bootstrap runbook makes it,
# and this takes it into the state. Once it is there, the block does nothing.
import {
  for_each = toset(var.import_state_bucket ? ["state"] : [])
  to       = digitalocean_spaces_bucket.this[each.key]
  id       = "${var.region},${var.buckets[each.key]}"
}

resource "digitalocean_spaces_bucket" "this" {
  for_each = var.buckets
  name     = each.value
  region   = var.region
  acl      = "private"

  # An overwritten or deleted object stays for a while: a state, a file or a backup that
  # went wrong can be taken back.
  versioning {
    enabled = true
  }

  lifecycle_rule {
    id                                     = "remove-old-versions-and-unfinished-uploads"
    enabled                                = true
    abort_incomplete_multipart_upload_days = 7

    noncurrent_version_expiration {
      days = 30
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}
