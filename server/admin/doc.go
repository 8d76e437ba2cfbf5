// Package admin is the operators' side of a node: HTTP with metrics, health, profiles and a JSON API.
//
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
// Who may call: with a password, every route but /healthz and /readyz wants HTTP basic authentication (any user name). A
// request that a browser sends on behalf of another site (an Origin header of another host) is refused, so that a page opened
// by an operator cannot reach a node on loopback.
package admin
