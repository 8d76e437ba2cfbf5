package checkpoint

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
)

// machineIdle reads from /proc/stat what part of the machine's processors had nothing to run.
type machineIdle struct {
	idle, all uint64 // clock ticks, as of the call before
}

func newMachineIdle() *machineIdle { return &machineIdle{} }

// part is the idle part since the call before, 0 to 1; unknown in the first call and where the kernel does not tell.
func (m *machineIdle) part() (part float64, known bool) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	line, err := bufio.NewReaderSize(f, 512).ReadBytes('\n')
	if err != nil {
		return 0, false
	}
	return m.parse(line)
}

// idleFields are the first eight fields after "cpu": user, nice, system, idle, iowait, irq, softirq and steal (proc_stat(5)). The
// others are part of these.
const idleFields = 8

func (m *machineIdle) parse(line []byte) (part float64, known bool) {
	fields := bytes.Fields(line)
	if len(fields) <= idleFields || string(fields[0]) != "cpu" {
		return 0, false
	}
	var idle, all uint64
	for i, field := range fields[1 : 1+idleFields] {
		n, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return 0, false
		}
		if all += n; i == 3 || i == 4 {
			idle += n
		}
	}
	defer func() { m.idle, m.all = idle, all }()
	// The kernel's sum for waiting on I/O may go back.
	if m.all == 0 || all <= m.all || idle < m.idle {
		return 0, false
	}
	return min(1, float64(idle-m.idle)/float64(all-m.all)), true
}
