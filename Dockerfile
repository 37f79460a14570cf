# The image of the scheduled runbooks (gitops/platform/chart/templates/backups.yaml): each runbook as one file, and the
# programs that it runs. Neither Terraform nor a package of npm is in it.
#   docker build --tag registry.lunarfront.tech/ryan/lunarfront-infra:$(git rev-parse --short HEAD) .
FROM node:22-trixie-slim AS bundles
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev
COPY lib lib
COPY runbooks runbooks
RUN node lib/bundle.mjs bundles runbooks/backup.mts runbooks/backups.mts runbooks/drill.mts runbooks/prune.mts \
  && rm bundles/*.map

FROM registry.k8s.io/kubectl:v1.36.3 AS kubectl

# Debian 13 has the client programs of PostgreSQL 17, the server's version: an older pg_dump refuses it.
FROM node:22-trixie-slim
RUN apt-get update \
  && apt-get install --yes --no-install-recommends age ca-certificates git openssh-client postgresql-client-17 tini zstd \
  && rm -rf /var/lib/apt/lists/* \
  && userdel --remove node \
  && useradd --uid 1000 --create-home lunarfront
COPY --from=kubectl /bin/kubectl /usr/local/bin/kubectl
WORKDIR /srv/lunarfront
COPY package.json ./
COPY terraform/variables.tf terraform/
COPY ansible/roles/gitea/defaults/main.yml ansible/roles/gitea/defaults/
COPY --from=bundles /build/bundles ./
USER 1000
ENTRYPOINT ["/usr/bin/tini", "--"]
