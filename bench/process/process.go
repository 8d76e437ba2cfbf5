package process

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"replicanode/server/admin"
)

const (
	anyPort      = "127.0.0.1:0"
	pollInterval = 10 * time.Millisecond
	logTailBytes = 2048
)

// Options says which node to run.
type Options struct {
	// Binary is the executable. Default: the running one.
	Binary string
	// Dir is the node's data folder. Required; its parent must exist.
	Dir string
	// Args are further flags of `run`.
	Args []string
	// Listen, Admin and Peer are addresses. Default 127.0.0.1 with a port that the node picks.
	Listen, Admin, Peer string
	// StartTimeout bounds the time until the node serves. Default 60 s.
	StartTimeout time.Duration
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() error {
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the running binary: %w", err)
		}
		o.Binary = self
	}
	for _, a := range []*string{&o.Listen, &o.Admin, &o.Peer} {
		if *a == "" {
			*a = anyPort
		}
	}
	o.StartTimeout = cmp.Or(o.StartTimeout, time.Minute)
	return nil
}

// Validate checks every field after EnsureDefaults.
func (o *Options) Validate() error {
	switch {
	case o.Dir == "":
		return errors.New("a node needs a data folder")
	case o.StartTimeout < 0:
		return fmt.Errorf("start timeout %v: must not be negative", o.StartTimeout)
	}
	return nil
}

// addresses is the file ADDRESSES of a running node.
type addresses struct {
	Listen string `json:"listen"`
	Admin  string `json:"admin"`
	Peer   string `json:"peer"`
	PID    int    `json:"pid"`
}

// Process is a running node. Its methods may be called from any goroutine.
type Process struct {
	opts   Options
	cmd    *exec.Cmd
	addrs  addresses
	exited chan struct{}
	result error // set before exited is closed
}

// Start runs a node and returns when it serves clients.
func Start(ctx context.Context, o Options) (*Process, error) {
	if err := o.EnsureDefaults(); err != nil {
		return nil, err
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	p := &Process{opts: o, exited: make(chan struct{})}
	if err := p.spawn(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.StartTimeout)
	defer cancel()
	if err := p.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return p, nil
}

// spawn starts the process and the goroutine that waits for it. The goroutine keeps its thread to itself: the kernel sends the
// death signal of a child when the thread that started it ends.
func (p *Process) spawn() error {
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log of node %s: %w", p.opts.Dir, err)
	}
	defer log.Close()
	args := append([]string{"run", "--data-dir", p.opts.Dir, "--listen", p.opts.Listen, "--admin", p.opts.Admin, "--peer", p.opts.Peer}, p.opts.Args...)
	p.cmd = exec.Command(p.opts.Binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = childAttributes()
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.result = p.cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start node %s: %w", p.opts.Binary, err)
	}
	return nil
}

// awaitReady waits until the node has written its addresses and serves.
func (p *Process) awaitReady(ctx context.Context) error {
	var last error
	var client *admin.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if client == nil {
			var ok bool
			if p.addrs, ok, last = readAddresses(p.opts.Dir, p.cmd.Process.Pid); ok {
				client = admin.NewClient(p.addrs.Admin, "")
			}
		} else {
			r, err := admin.Get[admin.Readiness](ctx, client, "/readyz")
			if err == nil && r.Ready {
				return nil
			}
			switch {
			case err == nil:
				last = fmt.Errorf("phase %s, %d of %d: %s", r.Phase, r.Done, r.Total, strings.Join(r.Reasons, ", "))
			case ctx.Err() == nil:
				last = err
			}
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return fmt.Errorf("node %s ended before it served: %w%s", p.opts.Dir, exitError(p.result), p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("node %s does not serve (%v): %w%s", p.opts.Dir, last, ctx.Err(), p.logTail())
		}
	}
}

func readAddresses(dir string, pid int) (addresses, bool, error) {
	var a addresses
	data, err := os.ReadFile(filepath.Join(dir, "ADDRESSES"))
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, errors.New("it listens nowhere yet")
	}
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	return a, err == nil && a.PID == pid, err
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func (p *Process) logPath() string { return filepath.Clean(p.opts.Dir) + ".log" }

// logTail returns the end of the node's output, on lines of its own.
func (p *Process) logTail() string {
	log, err := os.Open(p.logPath())
	if err != nil {
		return ""
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil || info.Size() == 0 {
		return ""
	}
	from := max(0, info.Size()-logTailBytes)
	tail, _ := io.ReadAll(io.NewSectionReader(log, from, logTailBytes))
	return "\n" + strings.TrimSpace(string(tail))
}

// Dir is the node's data folder.
func (p *Process) Dir() string { return p.opts.Dir }

// Listen is the address for Redis clients.
func (p *Process) Listen() string { return p.addrs.Listen }

// Admin is the address for operators.
func (p *Process) Admin() string { return p.addrs.Admin }

// Peer is the address for other nodes.
func (p *Process) Peer() string { return p.addrs.Peer }

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Again returns options that start the same node on the same ports, after this one has ended.
func (p *Process) Again() Options {
	o := p.opts
	o.Listen, o.Admin, o.Peer = p.addrs.Listen, p.addrs.Admin, p.addrs.Peer
	return o
}

// Exited is closed when the process has ended, for whatever reason.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err says how a process ended that nobody told to: it is nil while the process runs.
func (p *Process) Err() error {
	select {
	case <-p.exited:
		return fmt.Errorf("node %s ended: %w%s", p.opts.Dir, exitError(p.result), p.logTail())
	default:
		return nil
	}
}

// Kill ends the process without warning (SIGKILL) and waits for its end. It may be called at any time and more than once.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill node %s: %w", p.opts.Dir, err)
	}
	<-p.exited
	return nil
}

// Suspend stops the process where it is (SIGSTOP), until Resume: its peers find it silent, not gone.
func (p *Process) Suspend() error { return p.signal("suspend", syscall.SIGSTOP) }

// Resume lets a suspended process go on (SIGCONT).
func (p *Process) Resume() error { return p.signal("resume", syscall.SIGCONT) }

func (p *Process) signal(what string, s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s node %s: %w", what, p.opts.Dir, err)
	}
	return nil
}

// Terminate asks the process to end (SIGTERM) and waits; it kills when ctx ends first. It returns an error unless the process
// ended by itself with exit code 0.
func (p *Process) Terminate(ctx context.Context) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("terminate node %s: %w", p.opts.Dir, err)
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("terminate node %s: %w", p.opts.Dir, ctx.Err()), p.Kill())
	}
	if p.result != nil {
		return fmt.Errorf("node %s ended: %w%s", p.opts.Dir, p.result, p.logTail())
	}
	return nil
}
