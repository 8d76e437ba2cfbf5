package node

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"replicanode/server/admin"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// TestEveryRouteIsDocumented with the fields of its body and its answer.
func TestEveryRouteIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string][]any{
		"GET /readyz":                          {admin.Readiness{}},
		"GET /v1/status":                       {StatusAnswer{}},
		"GET /v1/duplications":                 {DuplicationsAnswer{}},
		"GET /v1/duplications/{remote}/lag":    {LagAnswer{}},
		"POST /v1/duplications/{remote}/pause": {Done{}},
		"GET /v1/checkpoints":                  {CheckpointsAnswer{}},
		"POST /v1/checkpoints":                 {CheckpointRequest{}, JobsAnswer{}},
		"POST /v1/checkpoints/prune":           {PruneRequest{}, JobsAnswer{}},
		"GET /v1/jobs/{id}":                    {JobStatus{}},
		"GET /v1/tasks":                        {TasksAnswer{}, tasks.Spec{}, tasks.Overridden{}},
		"POST /v1/pool/tasks/{id}/cancel":      {threadpool.FoundTask{}},
		"POST /v1/pool/tasks/{id}/move":        {TaskMove{}, threadpool.FoundTask{}},
		"GET /v1/tasks/explain":                {ExplainAnswer{}, Decision{}},
		"POST /v1/tasks/{code}":                {TaskChange{}, FieldChange{}, TasksAnswer{}},
		"GET /v1/pool":                         {threadpool.Settings{}, threadpool.Guards{}, threadpool.IORate{}},
		"POST /v1/pool":                        {TaskChange{}, FieldChange{}},
		"POST /v1/adaptive":                    {AdaptiveSwitch{}, tasks.AdaptiveStatus{}},
		"GET /v1/gc":                           {GCAnswer{}},
		"GET /v1/disks":                        {DisksAnswer{}},
	}
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 1})
	routes := n.admin.Routes()
	if len(routes) < 20 {
		t.Fatalf("only %d routes: %q", len(routes), routes)
	}
	for _, route := range routes {
		_, section, ok := strings.Cut(string(page), "### `"+route+"`")
		if !ok {
			if !strings.HasPrefix(route, "GET /debug/pprof/") || !strings.Contains(string(page), "`"+route+"`") {
				t.Errorf("docs/api.md does not have %s", route)
			}
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		for _, v := range types[route] {
			for _, name := range jsonNames(reflect.TypeOf(v)) {
				if !strings.Contains(section, "`"+name+"`") && !strings.Contains(section, `"`+name+`"`) {
					t.Errorf("%s: docs/api.md does not tell of %s", route, name)
				}
			}
		}
		delete(types, route)
	}
	for route := range types {
		t.Errorf("%s is no route", route)
	}
}

// jsonNames are the names of a struct's fields in JSON, those of embedded structs included.
func jsonNames(typ reflect.Type) []string {
	var names []string
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, jsonNames(f.Type)...)
		case name != "" && name != "-":
			names = append(names, name)
		}
	}
	return names
}
