// Package process runs replica nodes as the separate processes that they are in production, so that a benchmark can kill them
// without warning and start them again.
//
//	p, err := process.Start(ctx, process.Options{Dir: dir, Args: []string{"--partitions", "8"}})
//	defer p.Kill()
//	...
//	err = p.Kill()                       // SIGKILL, and wait
//	p, err = process.Start(ctx, p.Again()) // the same folder, flags and ports
//
// Start re-executes a binary (by default the running one) with `run`, a data folder and three loopback addresses. The node writes
// the addresses that it got to the file ADDRESSES in its folder, with its process id, so that the file of an earlier process is
// never taken for it; Start returns when /readyz says that the node serves.
//
// No process outlives its owner: Kill and Terminate wait for the end, a context that ends while Start waits kills, and on Linux
// the kernel kills the node when its parent dies. The node is in a process group of its own, so that an interrupt at the terminal
// reaches the benchmark only, which then ends its nodes. Its output is appended to the file `<Dir>.log`; its last lines are in the
// error when it dies too early.
package process
