// The ingress controller of the full rehearsal. Traefik's module lacks what its own build generates and what is not on
// the module proxy, so rehearsal/cluster/traefik.ts builds a copy in which source/ takes that place.
module lunarfront.test/cluster/traefik

go 1.26.0

require (
	github.com/go-acme/lego/v5 v5.4.1
	github.com/traefik/traefik/v3 v3.7.13
)
