# The Postgres and the Valkey that all customers share. Only the cluster and the Gitea
# droplet (the runbooks' way in) may reach them.

locals {
  platform_sources = {
    k8s     = digitalocean_kubernetes_cluster.main.id
    droplet = digitalocean_droplet.gitea.id
  }
}

resource "digitalocean_database_cluster" "postgres" {
  name                 = "${var.name}-postgres"
  engine               = "pg"
  version              = var.postgres_version
  size                 = var.postgres_size
  region               = var.region
  node_count           = 1
  private_network_uuid = digitalocean_vpc.main.id
  tags                 = [var.name]

  maintenance_window {
    day  = "sunday"
    hour = "03:00"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "digitalocean_database_firewall" "postgres" {
  cluster_id = digitalocean_database_cluster.postgres.id

  dynamic "rule" {
    for_each = local.platform_sources
    content {
      type  = rule.key
      value = rule.value
    }
  }
}

data "digitalocean_database_ca" "postgres" {
  cluster_id = digitalocean_database_cluster.postgres.id
}

resource "digitalocean_database_cluster" "valkey" {
  name                 = "${var.name}-valkey"
  engine               = "valkey"
  version              = var.valkey_version
  size                 = var.valkey_size
  region               = var.region
  node_count           = 1
  private_network_uuid = digitalocean_vpc.main.id
  tags                 = [var.name]

  # Queues live here: at the memory limit a write must fail, not an old job vanish.
  eviction_policy = "noeviction"

  maintenance_window {
    day  = "sunday"
    hour = "03:00"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "digitalocean_database_firewall" "valkey" {
  cluster_id = digitalocean_database_cluster.valkey.id

  dynamic "rule" {
    for_each = local.platform_sources
    content {
      type  = rule.key
      value = rule.value
    }
  }
}
