# Every name under the zone. All are DNS-only: Cloudflare's proxy neither carries SSH nor
# bodies above 100 MB (the registry), and its free certificate stops one label above
# NAME.app.

locals {
  # One folder per customer is the only list of customers.
  customers = {
    for file in fileset(var.apps_directory, "customer-*/values.yaml") :
    trimprefix(dirname(file), "customer-") => yamldecode(file("${var.apps_directory}/${file}"))
  }

  # Names under app.DOMAIN that are the platform's, now or soon: lib/customers.ts has the same.
  reserved_subdomains = [
    "admin", "api", "app", "argocd", "auth", "dev", "feature", "git", "gitea", "grafana", "lb", "login", "mail",
    "ns", "platform", "preview", "registry", "staging", "status", "test", "www",
  ]
}

resource "cloudflare_dns_record" "gitea" {
  for_each = toset(["git", "git-ssh", "registry"])
  zone_id  = var.cloudflare_zone_id
  name     = "${each.key}.${var.domain}"
  type     = "A"
  content  = digitalocean_reserved_ip.gitea.ip_address
  proxied  = false
  ttl      = 300
}

# The load balancer has an address but a CNAME needs a name: this one.
resource "cloudflare_dns_record" "load_balancer" {
  count   = var.load_balancer_ip == "" ? 0 : 1
  zone_id = var.cloudflare_zone_id
  name    = "lb.app.${var.domain}"
  type    = "A"
  content = var.load_balancer_ip
  proxied = false
  ttl     = 300
}

resource "cloudflare_dns_record" "customer" {
  for_each = local.customers
  zone_id  = var.cloudflare_zone_id
  name     = "${each.value.subdomain}.app.${var.domain}"
  type     = "CNAME"
  content  = "lb.app.${var.domain}"
  proxied  = false
  ttl      = 300

  lifecycle {
    precondition {
      condition     = each.value.customer == each.key
      error_message = "gitops/apps/customer-${each.key}/values.yaml is about customer ${each.value.customer}: folder and file must name the same one."
    }
    precondition {
      condition     = length([for customer in local.customers : customer if customer.subdomain == each.value.subdomain]) == 1
      error_message = "The subdomain ${each.value.subdomain} is used by more than one customer."
    }
    precondition {
      condition     = !contains(local.reserved_subdomains, each.value.subdomain)
      error_message = "The subdomain ${each.value.subdomain} of customer ${each.key} is reserved for the platform."
    }
  }
}
