package node

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"replicanode/duplication"
)

func TestDefaultsAreValid(t *testing.T) {
	o := DefaultOptions()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestBadOptionsNameFlagAndValue(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*Options)
		want string
	}{
		{"too many partitions", func(o *Options) { o.Partitions = 1025 }, "--partitions 1025"},
		{"no port", func(o *Options) { o.Listen = "127.0.0.1" }, "--listen 127.0.0.1"},
		{"bad port", func(o *Options) { o.Admin = "127.0.0.1:99999" }, "--admin 127.0.0.1:99999"},
		{"beyond loopback", func(o *Options) { o.Listen = "0.0.0.0:6380" }, "--requirepass"},
		{"every interface", func(o *Options) { o.Admin = ":9180" }, "--requirepass"},
		{"peer beyond loopback", func(o *Options) { o.Peer = "[::]:7380"; o.RequirePass = "x" }, "--peer-tls-cert"},
		{"half of TLS", func(o *Options) { o.PeerTLSKey = "key.pem" }, "--peer-tls-ca"},
		{"LOW on every slot", func(o *Options) { o.Workers = 2; o.LowLimit = 2 }, "--low-limit 2"},
		{"share that is no number", func(o *Options) { o.LowShare = math.NaN() }, "--low-share NaN"},
		{"own peer address", func(o *Options) { o.DuplicateTo = remoteAt("127.0.0.1:7380") }, "--duplicate-to b=127.0.0.1:7380"},
		{"own peer address by another loopback", func(o *Options) { o.DuplicateTo = remoteAt("localhost:7380") }, "--duplicate-to b=localhost:7380"},
		{"short request", func(o *Options) { o.Clients.MaxRequestBytes = 1 << 20 }, "--max-request-size 1048576"},
		{"short reply", func(o *Options) { o.Clients.MaxReplyBytes = 1 << 20 }, "--max-reply-size 1048576"},
		{"few buffers", func(o *Options) { o.Clients.MaxBufferBytes = 1 << 20 }, "--max-buffer-memory 1048576"},
		{"commands beyond the log", func(o *Options) { o.Clients.MaxCommandBytes = 1 << 30 }, "--max-command-size"},
		{"little to receive", func(o *Options) { o.Dup.ReceiveBytes = 2 << 20 }, "--dup-receive-bytes"},
		{"little to log", func(o *Options) { o.Storage.LogPendingBytes = 2 << 20 }, "--log-pending-bytes"},
		{"share above a half", func(o *Options) { o.LowShare = 0.9 }, "--low-share 0.9"},
		{"tiny slice", func(o *Options) { o.Slice = time.Nanosecond }, "--slice 1ns"},
		{"unknown code", func(o *Options) { o.TaskPriority = []string{"load=high"} }, "--task-priority load=high"},
		{"unknown level", func(o *Options) { o.TaskPriority = []string{"checkpoint=urgent"} }, "--task-priority checkpoint=urgent"},
		{"no level", func(o *Options) { o.TaskPriority = []string{"checkpoint"} }, "--task-priority checkpoint"},
		{"window below batch", func(o *Options) { o.DupWindowBytes = 5000; o.DupBatchBytes = 10000 }, "--dup-window-bytes 5000"},
		{"refusing before hurrying", func(o *Options) { o.DiskLowBytes = 1; o.DiskCriticalBytes = 2 }, "--disk-critical-bytes 2"},
		{"hasty idle timeout", func(o *Options) { o.Clients.IdleTimeout = time.Nanosecond }, "--client-idle-timeout 1ns"},
		{"grace that can't be multiplied", func(o *Options) { o.DropGrace = 2_000_000 * time.Hour }, "--drop-grace 2000000h"},
		{"endless wait", func(o *Options) { o.MaxWait = 2_000_000 * time.Hour }, "--max-wait 2000000h"},
		{"checkpoints kept for a negative time", func(o *Options) { o.CheckpointKeepFor = -time.Second }, "--checkpoint-keep-for -1s"},
		{"hasty checkpoints", func(o *Options) { o.CheckpointPeriod = time.Millisecond }, "--checkpoint-period 1ms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var o Options
			tc.set(&o)
			o.EnsureDefaults()
			err := o.Validate()
			var flag *FlagError
			if !errors.As(err, &flag) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want a flag error with %q", err, tc.want)
			}
		})
	}
}

func TestPasswordOpensTheNetwork(t *testing.T) {
	o := Options{Listen: "0.0.0.0:6380", Admin: "0.0.0.0:9180", RequirePass: "secret"}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestSetFailModes(t *testing.T) {
	for _, tc := range []struct {
		modes []string
		want  string
	}{
		{nil, "slow slow"}, {[]string{"skip"}, "skip skip"}, {[]string{"b=skip"}, "slow skip"}, {[]string{"skip", "a=slow"}, "slow skip"},
		{[]string{"c=skip"}, ""}, {[]string{"fast"}, ""}, {[]string{""}, ""}, {[]string{"a="}, ""}, {[]string{"=skip"}, ""},
	} {
		remotes := []duplication.Remote{{Name: "a"}, {Name: "b"}}
		err := SetFailModes(remotes, tc.modes)
		var flag *FlagError
		if tc.want == "" {
			if !errors.As(err, &flag) || flag.Flag != "dup-fail-mode" {
				t.Errorf("%q: %v", tc.modes, err)
			}
			continue
		}
		if got := fmt.Sprint(remotes[0].FailMode, remotes[1].FailMode); err != nil || got != tc.want {
			t.Errorf("%q: %s, %v; want %s", tc.modes, got, err, tc.want)
		}
	}
}

func TestParseRemote(t *testing.T) {
	r, err := ParseRemote("backup=127.0.0.1:7381,host-b:7382")
	if err != nil || r.Name != "backup" || len(r.Addresses) != 2 || r.Addresses[1] != "host-b:7382" {
		t.Fatalf("got %+v, %v", r, err)
	}
	for _, bad := range []string{"", "backup", "=127.0.0.1:1", "backup=", "backup=127.0.0.1", "backup=127.0.0.1:0", "backup=:7381", "backup=a:1,", "b/c=a:1", "backup=a:70000"} {
		var flag *FlagError
		if _, err := ParseRemote(bad); !errors.As(err, &flag) || flag.Flag != "duplicate-to" {
			t.Errorf("%q: got %v, want a flag error", bad, err)
		}
	}
}

func remoteAt(addr string) []duplication.Remote {
	return []duplication.Remote{{Name: "b", Addresses: []string{addr}}}
}

// TestSingleSlotServesEverybody: the one case in which LOW may hold all slots.
func TestSingleSlotServesEverybody(t *testing.T) {
	o := Options{Workers: 1, LowLimit: 1}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestOtherAddressesAreNotOurs(t *testing.T) {
	for _, tc := range []struct {
		remote, own string
		same        bool
	}{
		{"127.0.0.1:7381", "127.0.0.1:7380", false},
		{"127.0.0.1:7380", "0.0.0.0:7380", true},
		{"[::1]:7380", "[::]:7380", true},
		{"192.0.2.1:7380", "0.0.0.0:7380", false},
		{"192.0.2.1:7380", "127.0.0.1:7380", false},
		{"backup.example:7380", "127.0.0.1:7380", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
	} {
		if got := samePlace(tc.remote, tc.own); got != tc.same {
			t.Errorf("%s at %s: %t", tc.remote, tc.own, got)
		}
	}
}
