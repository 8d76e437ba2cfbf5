package load

import (
	"context"
	"fmt"
)

// PreloadOptions configures Preload.
type PreloadOptions struct {
	// Addr is the server (host:port). Required.
	Addr string
	// Password is sent by AUTH; "" sends none.
	Password string
	// Clients and Pipeline are those of ClosedOptions. Defaults 8 and 64.
	Clients, Pipeline int
	// Workload names the keys and values.
	Workload Workload
	// Ledger counts the writes; nil counts none.
	Ledger *Ledger
}

// Preload writes every key of the workload once. Any refused write is an error.
func Preload(ctx context.Context, o PreloadOptions) (Stats, error) {
	if o.Clients == 0 {
		o.Clients = 8
	}
	if o.Pipeline == 0 {
		o.Pipeline = 64
	}
	o.Workload.EnsureDefaults()
	d, err := StartClosed(ctx, ClosedOptions{
		Addr: o.Addr, Password: o.Password, Clients: o.Clients, Pipeline: o.Pipeline, Workload: o.Workload,
		Requests: uint64(o.Workload.Keys), sequential: true, ledger: o.Ledger,
	})
	if err != nil {
		return Stats{}, fmt.Errorf("preload: %w", err)
	}
	select {
	case <-d.Done():
	case <-ctx.Done():
	}
	err = d.Stop(ctx)
	stats := d.Take()
	switch {
	case ctx.Err() != nil:
		return stats, fmt.Errorf("preload: %w", ctx.Err())
	case err != nil:
		return stats, fmt.Errorf("preload: %w", err)
	case stats.Errors > 0:
		return stats, fmt.Errorf("preload: %d of %d writes failed, first: %s", stats.Errors, o.Workload.Keys, stats.ErrorTexts[0].Text)
	}
	return stats, nil
}
