// Package load drives a RESP server with reads and writes and measures what its clients would have felt.
//
// There are two drivers. An [Open] driver follows a schedule of arrivals that is fixed before the run ([Arrivals], rate and
// seed): a request is due when the schedule says so, whether or not earlier ones were answered, and its latency counts from
// that moment. A server that stops for a second is charged for every request that fell due in that second, so no omission is
// coordinated with the server. A [Closed] driver is a fixed number of clients which each wait for their answers before they
// ask again: it finds the rate a server can reach, and says little about latency under load.
//
//	d, err := load.StartOpen(ctx, load.OpenOptions{Addr: addr, Rate: 8000, Workload: w})
//	...                       // warm up
//	d.Take()                  // forget it
//	...                       // measure
//	stats := d.Take()         // what was answered since the last Take
//	err = d.Stop(ctx)         // no new requests; waits for the open ones
//
// # How it stays cheap
//
// The generator shares the machine with what it measures. One goroutine wakes every [OpenOptions.Tick], encodes everything that
// is due into the connections' buffers and writes each buffer once, without ever blocking on a socket; one goroutine per
// connection reads whatever has arrived, takes the time once, and records the replies in that connection's own HDR histograms
// (microseconds, three significant digits, up to [MaxLatency]). Histograms are merged when somebody asks.
//
// # What is sent
//
// A [Workload] makes the stream of operations from its seed: SET and GET of keys `<prefix><10 digits>`, uniform or zipfian. A
// key always travels on the same connection, so that writes to one key are applied in the order they were made. A value is
// filler that does not compress; when it is at least [MinStampedValue] long it begins with a stamp: the write's number, 10
// digits and a colon. With a [Ledger] that number counts the writes of its key: the ledger keeps the highest acknowledged
// number of each key (8 bytes a key), and [ReadBack] compares it with what a server holds to count acknowledged writes that
// are not there.
//
// # Bounds
//
// Requests without an answer are bounded per connection ([OpenOptions.MaxInFlight]), and so are the bytes of those that its socket
// does not take yet, by a share of 256 MiB. When a connection is at a bound the whole schedule waits for it, and the requests that
// fell due in the meantime keep their time. A reply longer than
// [MaxReplyBytes], or of a type that neither SET nor GET answers with, ends its connection. Lost connections are not opened
// again: their requests count as errors.
//
// Lock order: a connection's recorder mutex is a leaf.
package load
