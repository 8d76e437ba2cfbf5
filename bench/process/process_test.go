package process

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary plays the node when it is started with `run`.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		os.Exit(fakeNode(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

// fakeNode writes ADDRESSES and becomes ready at the third question. Its --mode makes it misbehave.
func fakeNode(args []string) int {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	dir, listen := flags.String("data-dir", "", ""), flags.String("listen", "", "")
	adminAddr, peer := flags.String("admin", "", ""), flags.String("peer", "", "")
	mode := flags.String("mode", "", "")
	if flags.Parse(args) != nil || *mode == "die" {
		fmt.Println("cannot open the data folder")
		return 3
	}
	l, err := net.Listen("tcp", *adminAddr)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var asked atomic.Int64
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ready := asked.Add(1) >= 3 && *mode != "never"
			if !ready {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprintf(w, `{"ready":%v,"phase":"open_replicas","done":1,"total":2}`, ready)
		}))
	}()
	stop := make(chan os.Signal, 1)
	if *mode != "deaf" {
		signal.Notify(stop, syscall.SIGTERM)
	} else {
		signal.Ignore(syscall.SIGTERM)
	}
	data, err := json.Marshal(addresses{Listen: *listen, Admin: l.Addr().String(), Peer: *peer, PID: os.Getpid()})
	if err == nil {
		err = os.MkdirAll(*dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(*dir, "ADDRESSES"), data, 0o644)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	<-stop
	return 0
}

func start(t *testing.T, o Options) *Process {
	t.Helper()
	p, err := Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	return p
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStartKillAgain(t *testing.T) {
	p := start(t, Options{Dir: filepath.Join(t.TempDir(), "node")})
	if p.Err() != nil || !alive(p.PID()) {
		t.Fatal("the node does not run")
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if alive(p.PID()) {
		t.Error("the node runs after Kill")
	}
	if err := p.Kill(); err != nil {
		t.Errorf("second Kill: %v", err)
	}
	if p.Err() == nil {
		t.Error("a killed node shows no error")
	}
	// The stale ADDRESSES of the first process must not be taken for the second's.
	again := start(t, p.Again())
	if again.Admin() != p.Admin() || again.PID() == p.PID() {
		t.Errorf("admin at %s, was %s", again.Admin(), p.Admin())
	}
	if err := again.Terminate(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestTerminateKillsADeafNode(t *testing.T) {
	p := start(t, Options{Dir: filepath.Join(t.TempDir(), "node"), Args: []string{"--mode", "deaf"}})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Terminate(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Terminate = %v", err)
	}
	if alive(p.PID()) {
		t.Error("the node runs")
	}
}

func TestStartTellsWhyNot(t *testing.T) {
	dir := t.TempDir()
	_, err := Start(context.Background(), Options{Dir: filepath.Join(dir, "a"), Args: []string{"--mode", "die"}})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "cannot open the data folder") {
		t.Errorf("a node that dies: %v", err)
	}
	_, err = Start(context.Background(), Options{Dir: filepath.Join(dir, "b"), Args: []string{"--mode", "never"}, StartTimeout: 300 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "phase open_replicas, 1 of 2") {
		t.Errorf("a node that is never ready: %v", err)
	}
	if _, err = Start(context.Background(), Options{Dir: filepath.Join(dir, "c"), Binary: "/none/replicanode"}); err == nil || !strings.Contains(err.Error(), "/none/replicanode") {
		t.Errorf("no binary: %v", err)
	}
	if _, err = Start(context.Background(), Options{}); err == nil {
		t.Error("no folder was taken")
	}
	if _, err = Start(context.Background(), Options{Dir: filepath.Join(dir, "none", "d")}); err == nil {
		t.Error("a folder without parent was taken")
	}
}
