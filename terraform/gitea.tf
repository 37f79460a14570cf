# The droplet that hosts Gitea (source, CI, container registry), its address, what may
# reach it, and its own Postgres.

resource "digitalocean_ssh_key" "operator" {
  for_each   = var.operator_ssh_keys
  name       = "${var.name}-${each.key}"
  public_key = each.value
}

resource "digitalocean_droplet" "gitea" {
  name       = "${var.name}-gitea"
  image      = var.gitea_droplet_image
  region     = var.region
  size       = var.gitea_droplet_size
  vpc_uuid   = digitalocean_vpc.main.id
  ssh_keys   = [for key in digitalocean_ssh_key.operator : key.fingerprint]
  monitoring = true
  tags       = [var.name]

  lifecycle {
    prevent_destroy = true
    # Both only matter at its birth, and a change would replace it: keys are Ansible's
    # afterwards, and so are the system's upgrades.
    ignore_changes = [ssh_keys, image]
  }
}

resource "digitalocean_reserved_ip" "gitea" {
  region = var.region

  lifecycle {
    prevent_destroy = true
    # The assignment below says whose it is. One that is imported knows its droplet, and
    # would be taken from it.
    ignore_changes = [droplet_id]
  }
}

resource "digitalocean_reserved_ip_assignment" "gitea" {
  ip_address = digitalocean_reserved_ip.gitea.ip_address
  droplet_id = digitalocean_droplet.gitea.id
}

resource "digitalocean_firewall" "gitea" {
  name        = "${var.name}-gitea"
  droplet_ids = [digitalocean_droplet.gitea.id]

  dynamic "inbound_rule" {
    for_each = {
      "22"   = var.admin_cidrs # the machine's own SSH
      "80"   = ["0.0.0.0/0", "::/0"]
      "443"  = ["0.0.0.0/0", "::/0"]
      "2222" = ["0.0.0.0/0", "::/0"] # git over SSH
    }
    content {
      protocol         = "tcp"
      port_range       = inbound_rule.key
      source_addresses = inbound_rule.value
    }
  }

  dynamic "outbound_rule" {
    for_each = ["tcp", "udp", "icmp"]
    content {
      protocol              = outbound_rule.value
      port_range            = outbound_rule.value == "icmp" ? null : "all"
      destination_addresses = ["0.0.0.0/0", "::/0"]
    }
  }
}

resource "digitalocean_database_cluster" "gitea" {
  name                 = "${var.name}-gitea-postgres"
  engine               = "pg"
  version              = var.postgres_version
  size                 = var.gitea_postgres_size
  region               = var.region
  node_count           = 1
  private_network_uuid = digitalocean_vpc.main.id
  tags                 = [var.name]

  maintenance_window {
    day  = "sunday"
    hour = "02:00"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "digitalocean_database_db" "gitea" {
  cluster_id = digitalocean_database_cluster.gitea.id
  name       = "gitea"

  lifecycle {
    prevent_destroy = true
  }
}

resource "digitalocean_database_user" "gitea" {
  cluster_id = digitalocean_database_cluster.gitea.id
  name       = "gitea"

  lifecycle {
    prevent_destroy = true
  }
}

data "digitalocean_database_ca" "gitea" {
  cluster_id = digitalocean_database_cluster.gitea.id
}

resource "digitalocean_database_firewall" "gitea" {
  cluster_id = digitalocean_database_cluster.gitea.id

  rule {
    type  = "droplet"
    value = digitalocean_droplet.gitea.id
  }
}
