package dup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicanode/tasks"
)

// Policy is a way of ordering background work: which priorities the load of the private log and the maintenance have, and
// whether the scheduler's guards against starvation are on.
type Policy struct {
	Name string `json:"name"`
	// Meaning is one line for people.
	Meaning string `json:"meaning"`
	// Storm says whether maintenance is asked for at all.
	Storm bool `json:"storm"`
	// Load and Maintenance are the levels of load_private_log and of all maintenance codes.
	Load        string `json:"load"`
	Maintenance string `json:"maintenance"`
	// Adaptive says whether the controller of priorities is on.
	Adaptive bool `json:"adaptive"`
	// Guards keeps the node's defaults for aging, LOW's share, LOW's limit, the number of checkpoints under way, which follows the load,
	// and their share of the processors; without them a pool knows strict priority, first in first out within one, and nothing else.
	Guards bool `json:"guards"`
}

// defaultPolicies are run when none are named.
func defaultPolicies() []string { return []string{"idle", "low", "parity", "common"} }

// Policies returns the policies that Run knows.
func Policies() []Policy {
	return []Policy{
		{Name: "idle", Meaning: "no maintenance at all: what the machine can do", Load: "common", Maintenance: "low", Guards: true},
		{Name: "low", Meaning: "log shipping below maintenance, strict: Pegasus as it was", Storm: true, Load: "low", Maintenance: "common"},
		{Name: "parity", Meaning: "both at one level, first in first out: Pegasus with its fix", Storm: true, Load: "common", Maintenance: "common"},
		{Name: "common", Meaning: "log shipping above maintenance, guarded: replicanode", Storm: true, Load: "common", Maintenance: "low", Guards: true},
		{Name: "adaptive", Meaning: "common, and the controller moves priorities and LOW's part by the load", Storm: true, Load: "common", Maintenance: "low", Guards: true, Adaptive: true},
	}
}

// unbounded is more checkpoints at once than there are partitions.
const unbounded = "1024"

// maintenanceCodes returns the codes that a policy's Maintenance level is for.
func maintenanceCodes() []tasks.Code {
	return []tasks.Code{tasks.Checkpoint, tasks.DiskStat, tasks.GCLogs, tasks.GCReplicas, tasks.GCValues}
}

// findPolicies looks names up.
func findPolicies(names []string) ([]Policy, error) {
	known := Policies()
	var list []Policy
	for _, name := range names {
		i := slices.IndexFunc(known, func(p Policy) bool { return p.Name == name })
		if i < 0 {
			valid := make([]string, len(known))
			for j, p := range known {
				valid[j] = p.Name
			}
			return nil, fmt.Errorf("policies %q: there is no such policy; the policies are %s", name, strings.Join(valid, ", "))
		}
		list = append(list, known[i])
	}
	return list, nil
}

// args are the node's flags that make it follow the policy.
func (p Policy) args(workers int) []string {
	args := []string{"--workers", strconv.Itoa(workers), "--task-priority", string(tasks.LoadPrivateLog) + "=" + p.Load}
	for _, code := range maintenanceCodes() {
		args = append(args, "--task-priority", string(code)+"="+p.Maintenance)
	}
	if !p.Guards {
		args = append(args, "--max-wait", time.Duration(0).String(), "--low-share", "0", "--low-limit", "off",
			"--task", string(tasks.Checkpoint)+".max_started=0",
			"--checkpoint-parallel", unbounded, "--checkpoint-parallel-min", unbounded, "--checkpoint-share", "off")
	}
	if p.Adaptive {
		args = append(args, "--adaptive")
	}
	return args
}
