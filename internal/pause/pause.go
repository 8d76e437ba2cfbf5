// Package pause waits for a time to pass, and not a moment longer than whoever waits is wanted.
package pause

import (
	"context"
	"time"
)

// For returns nil when d has passed, and the context's cause when that ends first. A d that is not positive has passed already.
func For(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
