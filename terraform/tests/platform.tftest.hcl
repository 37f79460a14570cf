# What must be true of the whole platform, whatever the settings: run by `terraform test`, without any account.

mock_provider "digitalocean" {
  # Nothing is applied here, since what holds data refuses to be destroyed afterwards.
  override_during = plan

  mock_resource "digitalocean_kubernetes_cluster" {
    defaults = { id = "cluster-1" }
  }
  mock_resource "digitalocean_droplet" {
    defaults = { id = "4711" }
  }
  mock_resource "digitalocean_reserved_ip" {
    defaults = { ip_address = "203.0.113.7" }
  }
}

mock_provider "cloudflare" {}

variables {
  name                = "lunarfront"
  domain              = "lunarfront.tech"
  region              = "nyc3"
  cloudflare_zone_id  = "0123456789abcdef0123456789abcdef"
  buckets             = { state = "lf-state", files = "lf-files", backups = "lf-backups" }
  import_state_bucket = false
  operator_ssh_keys   = { ryan = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }
  apps_directory      = "tests/apps"
}

run "cluster" {
  command = plan

  assert {
    condition     = digitalocean_kubernetes_cluster.main.ha == false
    error_message = "A highly available control plane costs $40 a month and cannot be switched off."
  }
  assert {
    condition     = digitalocean_kubernetes_cluster.main.destroy_all_associated_resources
    error_message = "Load balancers and volumes of a destroyed cluster would go on billing."
  }
  assert {
    condition     = digitalocean_kubernetes_cluster.main.node_pool[0].size == "s-2vcpu-4gb" && digitalocean_kubernetes_cluster.main.node_pool[0].node_count == 2
    error_message = "The cluster has two nodes s-2vcpu-4gb."
  }
}

run "a_kubernetes_version_that_is_still_offered" {
  command = plan

  override_data {
    target = data.digitalocean_kubernetes_versions.available
    values = { latest_version = "1.36.6-do.0" }
  }
  assert {
    condition     = digitalocean_kubernetes_cluster.main.version == "1.36.6-do.0"
    error_message = "A new cluster starts with the newest patch of the minor version."
  }
}

run "a_kubernetes_version_that_is_no_longer_offered" {
  command = plan

  override_data {
    target = data.digitalocean_kubernetes_versions.available
    values = { latest_version = "" }
  }
  assert {
    condition     = digitalocean_kubernetes_cluster.main.version == "1.36.0-do.0"
    error_message = "Without a version no plan can be made, not even of a cluster that runs."
  }
}

run "ports" {
  command = plan

  assert {
    condition     = toset([for rule in digitalocean_firewall.gitea.inbound_rule : rule.port_range]) == toset(["22", "80", "443", "2222"])
    error_message = "Only 22, 80, 443 and 2222 may reach the droplet."
  }
  assert {
    condition     = alltrue([for rule in digitalocean_firewall.gitea.inbound_rule : rule.protocol == "tcp"])
    error_message = "Nothing but TCP may reach the droplet."
  }
}

run "ssh_only_from_the_given_networks" {
  command = plan

  variables {
    admin_cidrs = ["198.51.100.0/24"]
  }
  assert {
    condition     = one([for rule in digitalocean_firewall.gitea.inbound_rule : rule.source_addresses if rule.port_range == "22"]) == toset(["198.51.100.0/24"])
    error_message = "Port 22 is open to more than admin_cidrs."
  }
}

run "no_database_is_public" {
  command = plan

  assert {
    condition     = toset([for rule in digitalocean_database_firewall.postgres.rule : "${rule.type}:${rule.value}"]) == toset(["k8s:cluster-1", "droplet:4711"])
    error_message = "Only the cluster and the droplet may reach the customers' Postgres."
  }
  assert {
    condition     = toset([for rule in digitalocean_database_firewall.valkey.rule : "${rule.type}:${rule.value}"]) == toset(["k8s:cluster-1", "droplet:4711"])
    error_message = "Only the cluster and the droplet may reach Valkey."
  }
  assert {
    condition     = toset([for rule in digitalocean_database_firewall.gitea.rule : "${rule.type}:${rule.value}"]) == toset(["droplet:4711"])
    error_message = "Only the droplet may reach Gitea's Postgres."
  }
}

run "databases" {
  command = plan

  assert {
    condition     = digitalocean_database_cluster.valkey.engine == "valkey" && digitalocean_database_cluster.valkey.eviction_policy == "noeviction"
    error_message = "Queues must not lose jobs when the memory is full."
  }
  assert {
    condition     = digitalocean_database_cluster.postgres.engine == "pg" && digitalocean_database_cluster.gitea.engine == "pg"
    error_message = "The customers and Gitea each have a Postgres."
  }
}

run "buckets" {
  command = plan

  assert {
    condition     = alltrue([for bucket in digitalocean_spaces_bucket.this : bucket.acl == "private" && bucket.versioning[0].enabled])
    error_message = "Every bucket is private and keeps overwritten objects."
  }
  assert {
    condition     = alltrue([for bucket in digitalocean_spaces_bucket.this : one(bucket.lifecycle_rule[0].noncurrent_version_expiration).days == 30])
    error_message = "Old versions go after 30 days, or they cost for ever."
  }
  assert {
    condition     = toset([for bucket in digitalocean_spaces_bucket.this : bucket.name]) == toset(["lf-state", "lf-files", "lf-backups"])
    error_message = "There are three buckets."
  }
}

run "names" {
  command = plan

  assert {
    condition     = { for key, record in cloudflare_dns_record.gitea : record.name => record.content } == { "git.lunarfront.tech" = "203.0.113.7", "git-ssh.lunarfront.tech" = "203.0.113.7", "registry.lunarfront.tech" = "203.0.113.7" }
    error_message = "git, git-ssh and registry lead to the droplet's reserved address."
  }
  assert {
    condition     = alltrue([for record in concat(values(cloudflare_dns_record.gitea), values(cloudflare_dns_record.customer)) : record.proxied == false])
    error_message = "No record may go through Cloudflare's proxy."
  }
  assert {
    condition     = { for customer, record in cloudflare_dns_record.customer : customer => "${record.name} ${record.type} ${record.content}" } == { acme = "acme.app.lunarfront.tech CNAME lb.app.lunarfront.tech", foo = "foo-shop.app.lunarfront.tech CNAME lb.app.lunarfront.tech" }
    error_message = "Each folder in gitops/apps gives one CNAME to the load balancer's name."
  }
  assert {
    condition     = length(cloudflare_dns_record.load_balancer) == 0
    error_message = "There is no record for a load balancer that is not there yet."
  }
}

run "load_balancer" {
  command = plan

  variables {
    load_balancer_ip = "203.0.113.99"
  }
  assert {
    condition     = cloudflare_dns_record.load_balancer[0].name == "lb.app.lunarfront.tech" && cloudflare_dns_record.load_balancer[0].proxied == false
    error_message = "The load balancer has a name of its own, DNS-only."
  }
}

run "refuses_two_customers_with_one_subdomain" {
  command = plan
  variables {
    apps_directory = "tests/apps-with-one-subdomain-twice"
  }
  expect_failures = [cloudflare_dns_record.customer]
}

run "refuses_a_reserved_subdomain" {
  command = plan
  variables {
    apps_directory = "tests/apps-with-a-reserved-subdomain"
  }
  expect_failures = [cloudflare_dns_record.customer]
}

run "refuses_bad_settings" {
  command = plan
  variables {
    name                = "LunarFront"
    domain              = "https://lunarfront.tech"
    region              = "New York"
    cloudflare_zone_id  = "lunarfront.tech"
    buckets             = { state = "same", files = "same", backups = "other" }
    operator_ssh_keys   = {}
    apps_directory      = " "
    load_balancer_ip    = "lb"
    admin_cidrs         = []
    vpc_cidr            = "10.0.0.0/8"
    kubernetes_version  = "latest"
    node_size           = "db-s-1vcpu-1gb"
    node_count          = 0
    postgres_version    = "14"
    postgres_size       = "big"
    valkey_version      = "redis"
    valkey_size         = "big"
    gitea_postgres_size = "s-1vcpu-1gb"
    gitea_droplet_size  = "1 GB"
    gitea_droplet_image = "Ubuntu 24.04"
  }
  expect_failures = [
    var.name, var.domain, var.region, var.cloudflare_zone_id, var.buckets, var.operator_ssh_keys, var.apps_directory,
    var.load_balancer_ip, var.admin_cidrs, var.vpc_cidr, var.kubernetes_version, var.node_size, var.node_count,
    var.postgres_version, var.postgres_size, var.valkey_version, var.valkey_size, var.gitea_postgres_size,
    var.gitea_droplet_size, var.gitea_droplet_image,
  ]
}

run "takes_other_good_settings" {
  command = plan
  variables {
    node_size           = "so1_5-2vcpu-16gb"
    gitea_droplet_size  = "s-2vcpu-4gb-120gb-intel"
    gitea_droplet_image = "195932981"
  }
}
