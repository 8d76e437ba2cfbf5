package poolmetrics_test

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/threadpool"
	"replicanode/threadpool/poolmetrics"
)

func Example() {
	p, err := threadpool.New(threadpool.Options{Workers: 2})
	if err != nil {
		panic(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(poolmetrics.New(p))
	if err := p.Start(context.Background()); err != nil {
		panic(err)
	}
	nothing := func(context.Context, *threadpool.Turn) error { return nil }
	if err := p.Do(context.Background(), threadpool.Task{Code: "gc", Run: nothing}); err != nil {
		panic(err)
	}
	if err := p.Stop(context.Background()); err != nil {
		panic(err)
	}
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		if f.GetName() == "replicanode_threadpool_finished_total" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	// Output: replicanode_threadpool_finished_total 1
}
