#!/bin/sh
# Tells, a line each, what is not as the playbook has left it. lib/droplet.ts asks.
exec 2>&1
found=0
differs() { echo "$1"; found=1; }

sha256sum --check --quiet /var/lib/lunarfront/files || found=1
for unit in ssh docker unattended-upgrades; do
	systemctl is-active --quiet $unit || differs "$unit does not run"
done
nft --stateless list table inet lunarfront 2>/dev/null | cmp -s - /var/lib/lunarfront/firewall ||
	differs 'the firewall has other rules than it was given'
if grep --quiet '^/swapfile ' /etc/fstab; then
	swapon --show=NAME --noheadings | grep --quiet --line-regexp /swapfile || differs 'the swap is not in use'
fi
for container in gitea gitea-runner gitea-proxy; do
	state=$(docker inspect --format '{{.State.Status}}{{if .State.Health}} {{.State.Health.Status}}{{end}}' $container)
	case $state in running | 'running healthy') ;; *) differs "$container is $state" ;; esac
done
exit $found
