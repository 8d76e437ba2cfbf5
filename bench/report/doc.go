// Package report is how every benchmark of replicanode speaks: one table for people, one JSON document for
// programs, one line of progress while it runs.
//
// A document says what was asked ([Document].Config), on what ([Machine]) and what came out ([Document].Results), so
// that two files can be compared without knowing how they were made. Keys are stable: they are snake case, carry their
// unit (`_ms`, `_bytes`, `_seconds`), and are added but never renamed. Times are milliseconds with microsecond
// precision, as [Quantiles].
//
//	doc := report.Document{Config: opts, Machine: report.ThisMachine(dir), Results: results}
//	err := report.WriteJSON(path, doc)
//
//	t := report.NewTable("policy", "qps", "p99 ms")
//	t.Row("common", 8000, report.Millis(q.P99))
//	err := t.Write(out)
//
//	p := report.NewProgress(out, len(steps))
//	p.Step("common at 8000/s: steady part")
//	p.Close()
//
// Nothing here is safe for concurrent use, except [Progress].
package report
