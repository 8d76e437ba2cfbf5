package plog

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestEveryKindOfDamageIsCountedFromZero, so that the first of a kind is an increase.
func TestEveryKindOfDamageIsCountedFromZero(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			if name, ok := v.Type.(*ast.Ident); ok && name.Name == "Kind" {
				declared += len(v.Names)
			}
		}
		return true
	})
	reg := prometheus.NewRegistry()
	NewMetrics(reg)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, f := range families {
		if f.GetName() == "replicanode_plog_corruptions_total" {
			shown = len(f.GetMetric())
		}
	}
	if shown != declared || declared == 0 {
		t.Errorf("%d kinds are counted, %d declared", shown, declared)
	}
}
