package report

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// Machine describes where a benchmark ran, without naming the machine. Fields that cannot be found out on this
// system are empty or zero.
type Machine struct {
	OS          string `json:"os"`
	Arch        string `json:"arch"`
	Kernel      string `json:"kernel,omitempty"`
	CPU         string `json:"cpu,omitempty"`
	CPUs        int    `json:"cpus"`
	GOMAXPROCS  int    `json:"gomaxprocs"`
	MemoryBytes uint64 `json:"memory_bytes,omitempty"`
	// Filesystem is the type of the file system which holds the benchmark's data, as the kernel names it.
	Filesystem string `json:"filesystem,omitempty"`
	Go         string `json:"go"`
	// Revision is the commit that this binary was built from, with "+" when the tree had changes.
	Revision string `json:"revision,omitempty"`
}

// ThisMachine describes the machine the caller runs on. dir is where the benchmark keeps its data; "" leaves the
// file system out.
func ThisMachine(dir string) Machine {
	m := Machine{
		OS:         runtime.GOOS,
		Arch:       runtime.GOARCH,
		CPUs:       runtime.NumCPU(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		Go:         runtime.Version(),
		Revision:   revision(),
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	m.CPU = procField("/proc/cpuinfo", "model name")
	if kb, ok := strings.CutSuffix(procField("/proc/meminfo", "MemTotal"), " kB"); ok {
		if n, err := strconv.ParseUint(strings.TrimSpace(kb), 10, 54); err == nil {
			m.MemoryBytes = n << 10
		}
	}
	if dir != "" {
		m.Filesystem = filesystem(dir)
	}
	return m
}

// procField returns the value of the first "name : value" line of a /proc file, "" when there is none.
func procField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var rev, mark string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			mark = "+"
		}
	}
	if rev == "" {
		return ""
	}
	return rev + mark
}
