# What the runbooks, Ansible and a person need to know of what was made. Kubernetes'
# credentials are not here: they expire, so they are fetched when they are needed.

output "cluster" {
  description = "The Kubernetes cluster: id and API endpoint."
  value = {
    id       = digitalocean_kubernetes_cluster.main.id
    endpoint = digitalocean_kubernetes_cluster.main.endpoint
  }
}

output "postgres" {
  description = "The customers' Postgres, as its administrator doadmin reaches it from inside the private network."
  value = {
    host     = digitalocean_database_cluster.postgres.private_host
    port     = digitalocean_database_cluster.postgres.port
    user     = digitalocean_database_cluster.postgres.user
    password = digitalocean_database_cluster.postgres.password
    database = digitalocean_database_cluster.postgres.database
    ca       = data.digitalocean_database_ca.postgres.certificate
  }
  sensitive = true
}

output "valkey_url" {
  description = "Where every application finds the shared Valkey: rediss://..."
  value       = digitalocean_database_cluster.valkey.private_uri
  sensitive   = true
}

output "gitea" {
  description = "The Gitea droplet: its public address, and its private one."
  value = {
    id         = tostring(digitalocean_droplet.gitea.id)
    ip         = digitalocean_reserved_ip.gitea.ip_address
    private_ip = digitalocean_droplet.gitea.ipv4_address_private
  }
}

output "gitea_postgres" {
  description = "Gitea's own database, its user, and the administrator doadmin."
  value = {
    host     = digitalocean_database_cluster.gitea.private_host
    port     = digitalocean_database_cluster.gitea.port
    user     = digitalocean_database_user.gitea.name
    password = digitalocean_database_user.gitea.password
    database = digitalocean_database_db.gitea.name
    ca       = data.digitalocean_database_ca.gitea.certificate
    admin = {
      user     = digitalocean_database_cluster.gitea.user
      password = digitalocean_database_cluster.gitea.password
    }
  }
  sensitive = true
}

output "buckets" {
  description = "The Spaces buckets by what they are for: state, files, backups."
  value       = { for purpose, bucket in digitalocean_spaces_bucket.this : purpose => bucket.name }
}
