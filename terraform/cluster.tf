# The private network and the Kubernetes cluster that runs every customer's application.

resource "digitalocean_vpc" "main" {
  name     = var.name
  region   = var.region
  ip_range = var.vpc_cidr
}

data "digitalocean_kubernetes_versions" "available" {
  version_prefix = "${var.kubernetes_version}."
}

resource "digitalocean_kubernetes_cluster" "main" {
  name     = var.name
  region   = var.region
  vpc_uuid = digitalocean_vpc.main.id
  tags     = [var.name]

  # One day DigitalOcean no longer offers that minor version. A cluster that runs is not
  # touched by that, but a version must be said here all the same, or no plan can be made.
  version = coalesce(data.digitalocean_kubernetes_versions.available.latest_version, "${var.kubernetes_version}.0-do.0")

  # Said out loud: from Kubernetes 1.36 on, leaving it out gives a highly available
  # control plane, which costs $40 a month and cannot be switched off again.
  ha = false

  auto_upgrade  = true
  surge_upgrade = true

  maintenance_policy {
    day        = "sunday"
    start_time = "04:00"
  }

  # Load balancers and volumes that the cluster made go with it, or they cost on.
  destroy_all_associated_resources = true

  node_pool {
    name       = "workers"
    size       = var.node_size
    node_count = var.node_count
    tags       = [var.name]
  }

  lifecycle {
    # Another node size would replace it, and its volumes with it.
    prevent_destroy = true
    # DigitalOcean upgrades it in the maintenance window.
    ignore_changes = [version]
  }
}
