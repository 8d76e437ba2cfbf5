package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"replicanode/bench/process"
	"replicanode/server/admin"
)

// replaceBackup kills the backup, removes its folder and, under load, starts a new one in its place which is restored from
// checkpoints of the primary.
func (r *run) replaceBackup(ctx context.Context) (restart time.Duration, err error) {
	again := r.backup.Again()
	if err := r.backup.Kill(); err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := r.checkpoint(ctx); err != nil {
		return 0, err
	}
	if err := r.seed(ctx, again); err != nil {
		return 0, err
	}
	if r.backup, err = process.Start(ctx, again); err != nil {
		return 0, err
	}
	restart = time.Since(begun)
	client := admin.NewClient(r.primary.Admin(), "")
	defer client.Close()
	if _, err := admin.Post[struct{}](ctx, client, "/v1/duplications/backup/resume", nil); err != nil {
		return 0, err
	}
	return restart, r.pause(ctx)
}

// checkpoint makes the primary copy all its partitions.
func (r *run) checkpoint(ctx context.Context) error {
	type jobs struct {
		Jobs []struct {
			ID uint64 `json:"id"`
		} `json:"jobs"`
	}
	client := admin.NewClient(r.primary.Admin(), "")
	defer client.Close()
	begun, err := admin.Post[jobs](ctx, client, "/v1/checkpoints", map[string]bool{"all": true})
	for _, job := range begun.Jobs {
		err = errors.Join(err, awaitCheckpoint(ctx, client, job.ID))
	}
	if err != nil {
		return fmt.Errorf("checkpoint of the primary: %w", err)
	}
	return nil
}

func awaitCheckpoint(ctx context.Context, client *admin.Client, id uint64) error {
	for {
		job, err := admin.Get[struct {
			Done  bool   `json:"done"`
			Error string `json:"error"`
		}](ctx, client, fmt.Sprintf("/v1/jobs/%d?wait=10s", id))
		switch {
		case err != nil:
			return err
		case job.Error != "":
			return errors.New(job.Error)
		case job.Done:
			return nil
		}
	}
}

// seed replaces the backup's folder by one restored from the primary's newest checkpoint of all partitions.
func (r *run) seed(ctx context.Context, backup process.Options) error {
	if err := os.RemoveAll(backup.Dir); err != nil {
		return fmt.Errorf("remove the backup's folder: %w", err)
	}
	restore := exec.CommandContext(ctx, backup.Binary, "checkpoint", "restore", "--data-dir", r.primary.Dir(), "--node", "latest", "--to", backup.Dir)
	if out, err := restore.CombinedOutput(); err != nil {
		return fmt.Errorf("restore the backup: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
