# Every setting of the platform. The runbooks give the first group from the site file;
# terraform.tfvars may set the second.

# --- given by the site file ------------------------------------------------------------

variable "name" {
  description = "What the platform's resources are named after, such as lunarfront."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 24 lower-case letters, digits and hyphens, starting with a letter and ending without a hyphen."
  }
}

variable "domain" {
  description = "The zone under which everything answers, such as lunarfront.tech."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,63}$", var.domain))
    error_message = "domain must be a lower-case domain name such as lunarfront.tech."
  }
}

variable "region" {
  description = "DigitalOcean region of everything, Spaces included, such as nyc3."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{3}[0-9]$", var.region))
    error_message = "region must be a DigitalOcean region slug such as nyc3."
  }
}

variable "cloudflare_zone_id" {
  description = "Cloudflare's id of the zone of var.domain, 32 hexadecimal digits."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{32}$", var.cloudflare_zone_id))
    error_message = "cloudflare_zone_id must be 32 hexadecimal digits."
  }
}

variable "buckets" {
  description = "Names of the three Spaces buckets; unique across all of a region's customers."
  type = object({
    state   = string
    files   = string
    backups = string
  })

  validation {
    condition     = alltrue([for name in values(var.buckets) : can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", name))])
    error_message = "Bucket names must be 3 to 63 lower-case letters, digits and hyphens."
  }

  validation {
    condition     = length(distinct(values(var.buckets))) == 3
    error_message = "The three buckets must have three different names."
  }
}

variable "import_state_bucket" {
  description = "Whether the state bucket is already there and to be imported: always, but for a plan made before it is."
  type        = bool
  default     = true
}

variable "operator_ssh_keys" {
  description = "Public SSH keys that the Gitea droplet starts with, by the name of their holder."
  type        = map(string)

  validation {
    condition     = length(var.operator_ssh_keys) > 0
    error_message = "operator_ssh_keys must hold at least one key: without one nobody can reach the droplet."
  }

  validation {
    condition     = alltrue([for key in values(var.operator_ssh_keys) : can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh.com) [A-Za-z0-9+/]+=*( .*)?$", key))])
    error_message = "operator_ssh_keys must be public keys such as \"ssh-ed25519 AAAA...\"."
  }
}

variable "apps_directory" {
  description = "Folder with one customer-NAME/values.yaml per customer: gitops/apps of the repository as it is on its main branch."
  type        = string
  default     = "../gitops/apps"

  validation {
    condition     = trimspace(var.apps_directory) != ""
    error_message = "apps_directory must be a folder; without one every customer's record would go."
  }
}

variable "load_balancer_ip" {
  description = "Public address of the load balancer that the cluster's ingress made; empty until there is one."
  type        = string
  default     = ""

  validation {
    condition     = var.load_balancer_ip == "" || can(cidrhost("${var.load_balancer_ip}/32", 0))
    error_message = "load_balancer_ip must be an IPv4 address, or empty."
  }
}

# --- sizes and versions: terraform.tfvars ----------------------------------------------

variable "admin_cidrs" {
  description = "Networks from which the droplet's own SSH (port 22) may be reached."
  type        = list(string)
  default     = ["0.0.0.0/0", "::/0"]

  validation {
    condition     = length(var.admin_cidrs) > 0 && alltrue([for cidr in var.admin_cidrs : can(cidrhost(cidr, 0))])
    error_message = "admin_cidrs must be networks such as 203.0.113.0/24; an empty list would lock everybody out."
  }
}

variable "vpc_cidr" {
  description = "Address range of the private network between cluster, databases and droplet."
  type        = string
  default     = "10.120.0.0/20"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && can(regex("/(1[6-9]|2[0-8])$", var.vpc_cidr))
    error_message = "vpc_cidr must be a network of size /16 to /28, such as 10.120.0.0/20."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes minor version that the cluster starts with, such as 1.36; afterwards DigitalOcean upgrades it."
  type        = string
  default     = "1.36"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version must be a minor version such as 1.36."
  }
}

variable "node_size" {
  description = "Droplet size of the cluster's nodes; DigitalOcean cannot change it on a cluster that is there."
  type        = string
  default     = "s-2vcpu-4gb"

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]*(-[a-z0-9]+)+$", var.node_size)) && !startswith(var.node_size, "db-")
    error_message = "node_size must be a droplet size slug such as s-2vcpu-4gb."
  }
}

variable "node_count" {
  description = "Number of the cluster's nodes."
  type        = number
  default     = 2

  validation {
    condition     = var.node_count >= 1 && var.node_count <= 20 && floor(var.node_count) == var.node_count
    error_message = "node_count must be a whole number from 1 to 20."
  }
}

variable "postgres_version" {
  description = "Major version of both Postgres clusters."
  type        = string
  default     = "17"

  validation {
    condition     = can(regex("^1[5-9]$", var.postgres_version))
    error_message = "postgres_version must be a major version from 15 to 19: before 15 everybody may write to the schema public."
  }
}

variable "postgres_size" {
  description = "Size of the Postgres cluster that all customers share."
  type        = string
  default     = "db-s-1vcpu-1gb"

  validation {
    condition     = can(regex("^(db|gd|so1_5|m)-", var.postgres_size))
    error_message = "postgres_size must be a database size slug such as db-s-1vcpu-1gb."
  }
}

variable "valkey_version" {
  description = "Major version of the shared Valkey."
  type        = string
  default     = "8"

  validation {
    condition     = can(regex("^[89]$", var.valkey_version))
    error_message = "valkey_version must be 8 or 9."
  }
}

variable "valkey_size" {
  description = "Size of the shared Valkey."
  type        = string
  default     = "db-s-1vcpu-1gb"

  validation {
    condition     = can(regex("^(db|gd|so1_5|m)-", var.valkey_size))
    error_message = "valkey_size must be a database size slug such as db-s-1vcpu-1gb."
  }
}

variable "gitea_postgres_size" {
  description = "Size of Gitea's own Postgres cluster."
  type        = string
  default     = "db-s-1vcpu-1gb"

  validation {
    condition     = can(regex("^(db|gd|so1_5|m)-", var.gitea_postgres_size))
    error_message = "gitea_postgres_size must be a database size slug such as db-s-1vcpu-1gb."
  }
}

variable "gitea_droplet_size" {
  description = "Size of the Gitea droplet."
  type        = string
  default     = "s-1vcpu-1gb"

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]*(-[a-z0-9]+)+$", var.gitea_droplet_size)) && !startswith(var.gitea_droplet_size, "db-")
    error_message = "gitea_droplet_size must be a droplet size slug such as s-1vcpu-1gb."
  }
}

variable "gitea_droplet_image" {
  description = "Image that the Gitea droplet starts from."
  type        = string
  default     = "ubuntu-24-04-x64"

  validation {
    condition     = can(regex("^([a-z][a-z0-9]*(-[a-z0-9]+)+|[0-9]+)$", var.gitea_droplet_image))
    error_message = "gitea_droplet_image must be an image slug such as ubuntu-24-04-x64, or the number of a snapshot."
  }
}
