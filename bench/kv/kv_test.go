package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"replicanode/internal/fixture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClosedLoopAgainstRedis(t *testing.T) {
	addr, _ := fixture.StockRedis(t)
	o := Options{Addr: addr, Clients: 4, Pipeline: 8, Requests: 20_000, Ratio: "3:1", Dist: "zipfian", Keys: 1000, ValueSize: 32, Preload: true}
	var progress bytes.Buffer
	r, err := Run(context.Background(), o, &progress)
	if err != nil {
		t.Fatal(err)
	}
	if n := r.ReadMs.Requests + r.WriteMs.Requests; n != 20_000 || r.Errors != 0 {
		t.Errorf("%d requests, %d errors: %v", n, r.Errors, r.ErrorTexts)
	}
	if share := float64(r.ReadMs.Requests) / 20_000; math.Abs(share-0.75) > 0.02 {
		t.Errorf("%.3f reads, want 0.75", share)
	}
	if r.WriteMs.P50 <= 0 || r.WriteMs.P50 > r.WriteMs.P99 || r.WriteMs.P99 > r.WriteMs.Max {
		t.Errorf("writes: %+v", r.WriteMs)
	}
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	if n, err := client.DBSize(context.Background()).Result(); err != nil || n != 1000 {
		t.Errorf("%d keys, %v", n, err)
	}
}

func TestOpenLoopAgainstRedis(t *testing.T) {
	addr, _ := fixture.StockRedis(t, "--requirepass", "secret")
	o := Options{Addr: addr, Password: "secret", Clients: 4, QPS: 2000, Arrivals: "evenly", Requests: 1000, Ratio: "0:1"}
	r, err := Run(context.Background(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.WriteMs.Requests != 1000 || r.ReadMs.Requests != 0 {
		t.Errorf("%d writes, %d reads, want 1000 and 0", r.WriteMs.Requests, r.ReadMs.Requests)
	}
	var table bytes.Buffer
	if err := r.Write(&table); err != nil || !strings.Contains(table.String(), "p99.9 ms") || strings.Contains(table.String(), "reads") {
		t.Errorf("table:\n%s", table.String())
	}
	text, err := json.Marshal(r.Document())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("secret")) {
		t.Error("the password is in the report")
	}
	for _, key := range []string{`"config":{"addr":`, `"machine":{`, `"results":[{`, `"read_ms":{`, `"p99_9":`, `"error_texts":[]`} {
		if !bytes.Contains(text, []byte(key)) {
			t.Errorf("%s is missing in %s", key, text)
		}
	}
}

func TestErrorsAreShown(t *testing.T) {
	addr, _ := fixture.StockRedis(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	r, err := Run(context.Background(), Options{Addr: addr, Requests: 500, Clients: 2, Ratio: "0:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Errors != 500 || len(r.ErrorTexts) != 1 || !strings.HasPrefix(r.ErrorTexts[0].Text, "OOM") {
		t.Fatalf("%d errors: %v", r.Errors, r.ErrorTexts)
	}
	var table bytes.Buffer
	if err := r.Write(&table); err != nil || !strings.Contains(table.String(), "500 × OOM") {
		t.Errorf("table:\n%s", table.String())
	}
}

func TestInterruptedRunKeepsItsResult(t *testing.T) {
	addr, _ := fixture.StockRedis(t)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	r, err := Run(ctx, Options{Addr: addr, Seconds: 60, Clients: 2}, nil)
	if err == nil || r.Rate == 0 {
		t.Errorf("rate %v, error %v", r.Rate, err)
	}
}

// A server that answers nothing cannot hold the run beyond its time.
func TestARunEndsThoughTheServerIsStuck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, o := range map[string]Options{"closed loop": {}, "open loop": {QPS: 100}} {
		t.Run(name, func(t *testing.T) {
			o.Addr, o.Clients, o.Seconds, o.Ratio, o.drain = l.Addr().String(), 2, 0.1, "0:1", 50*time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			r, err := Run(ctx, o, nil)
			if ctx.Err() != nil {
				t.Fatalf("the run went on until it was interrupted: %v", err)
			}
			if r.Rate != 0 || r.Errors == 0 {
				t.Errorf("rate %v, %d errors, %v", r.Rate, r.Errors, err)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		"seconds -1":     {Seconds: -1},
		"qps -1":         {QPS: -1},
		"qps NaN":        {QPS: math.NaN()},
		`arrivals "now"`: {Arrivals: "now"},
		"pipeline 2":     {Pipeline: 2, QPS: 1},
		`ratio "1"`:      {Ratio: "1"},
		`ratio "0:0"`:    {Ratio: "0:0"},
		`ratio "-1:1"`:   {Ratio: "-1:1"},
		"clients 9999":   {Clients: 9999},
		`dist "x"`:       {Dist: "x"},
		"value-size -5":  {ValueSize: -5},
		"connect":        {Addr: "127.0.0.1:1"},
	} {
		if _, err := Run(context.Background(), o, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
