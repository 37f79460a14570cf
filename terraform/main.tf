# Terraform and its providers, and where the state lives.
# Credentials come from the providers' own environment variables, never from a file.

terraform {
  required_version = ">= 1.10.0"

  required_providers {
    digitalocean = {
      source  = "digitalocean/digitalocean"
      version = "2.99.0"
    }
    cloudflare = {
      source  = "cloudflare/cloudflare"
      version = "5.22.0"
    }
  }

  # The bucket and the endpoint are the site's: -backend-config gives them.
  # Spaces speaks S3 but is not AWS, so every check against AWS is skipped.
  backend "s3" {
    key                         = "terraform.tfstate"
    region                      = "us-east-1"
    use_lockfile                = true
    use_path_style              = true
    skip_credentials_validation = true
    skip_requesting_account_id  = true
    skip_metadata_api_check     = true
    skip_region_validation      = true
    skip_s3_checksum            = true
  }
}

# DIGITALOCEAN_TOKEN, SPACES_ACCESS_KEY_ID, SPACES_SECRET_ACCESS_KEY
provider "digitalocean" {}

# CLOUDFLARE_API_TOKEN
provider "cloudflare" {}
