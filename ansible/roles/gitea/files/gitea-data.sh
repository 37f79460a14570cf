#!/bin/bash
# All of Gitea that cannot be made anew, as one archive, and back from one: lib/gitea-backup.ts and lib/gitea-restore.ts ask.
set -euo pipefail

home=/srv/gitea
own=/var/lib/lunarfront

archive() {
	tar --create --numeric-owner --one-file-system --sort=name --directory=/ \
		--exclude=srv/gitea/data/gitea/tmp --exclude=srv/gitea/data/gitea/indexers --exclude=srv/gitea/data/gitea/log \
		"$@" srv/gitea var/lib/lunarfront/gitea-password var/lib/lunarfront/gitea-token
}

case "${1:-}" in
hold)
	# They stay stopped as long as somebody keeps standard input open, and start however that ends: systemd sees to it.
	shift
	if systemctl is-active --quiet gitea-held; then
		echo 'Gitea is held by another backup or restore' >&2
		exit 75
	fi
	exec systemd-run --quiet --pipe --wait --collect --unit=gitea-held --property=RuntimeMaxSec=6h \
		--property="ExecStopPost=/usr/bin/docker start $*" \
		/bin/sh -c 'docker stop --time 60 "$@" >/dev/null && echo held && exec cat >/dev/null' sh "$@"
	;;
healthy)
	for _ in $(seq 240); do
		[ "$(docker inspect --format '{{.State.Health.Status}}' gitea)" = healthy ] && exit
		sleep 0.5
	done
	echo 'Gitea is not healthy after 2 minutes: docker logs gitea' >&2
	exit 1
	;;
version)
	docker exec gitea /app/gitea/gitea --version | sed -n 's/.*version \([^ ]*\).*/\1/p'
	;;
count)
	archive --file=/dev/null --verbose | wc -l
	;;
archive)
	archive --file=-
	;;
restore)
	# The archive comes on standard input, and Gitea is held. What the playbook has written stays as it is here.
	new=/srv/.gitea-restored
	rm -rf $new
	mkdir --mode=0700 $new
	tar --extract --numeric-owner --same-permissions --ignore-zeros --exclude=database.dump --directory=$new
	for kept in settings compose.yml authority.crt proxy/Caddyfile runner/settings.yml; do
		rm -rf "$new/srv/gitea/$kept"
		cp --archive "$home/$kept" "$new/srv/gitea/$kept"
	done
	sync --file-system $new
	# In one moment: at none of them is there no Gitea.
	python3 -c 'import ctypes, os, sys
exchange = ctypes.CDLL(None, use_errno=True).renameat2
if exchange(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2): sys.exit(os.strerror(ctypes.get_errno()))' $new/srv/gitea $home
	mv $new/var/lib/lunarfront/gitea-password $new/var/lib/lunarfront/gitea-token $own/
	mv $new/srv/gitea "/srv/gitea.before-$2"
	rm -rf $new
	;;
*)
	echo "usage: $0 hold CONTAINER… | healthy | version | count | archive | restore STAMP" >&2
	exit 64
	;;
esac
