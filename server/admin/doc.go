// Package admin is the operators' side of a node: HTTP with metrics, health, profiles and a JSON API.
//
//	GET  /                    the routes there are
//	GET  /metrics             Prometheus text format
//	GET  /healthz             200 while the process can serve at all, else 503 and why
//	GET  /readyz              200 when the node serves clients, else 503: which phase, how far, and why not
//	GET  /debug/pprof/…       Go profiles
//	     /v1/…                the JSON API; the routes are registered by the node with Handle
//
// A Server is made with New on a listener that the caller has bound, started with Start and ended with Stop. A Client speaks to
// it; the command line uses nothing else.
//
// Every answer of the JSON API is an object, or {"error": "…"} with a status of 400 or more. A request body is JSON, at most
// MaxBodyBytes long, and refused when it has a field that the route does not know.
//
// Who may call: with a password, every route but /healthz and /readyz wants HTTP basic authentication (any user name). A page that an
// operator opens in a browser cannot reach a node on loopback: a request is refused when its Origin is another host; when its Host is a
// name other than localhost, which a page's own name may be made to mean (DNS rebinding); and when it changes something without being
// declared JSON, which browsers do not send to other sites unasked.
package admin
