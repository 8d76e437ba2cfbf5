package threadpool

// hasCounter says whether counter counts.
const hasCounter = true

// counter reads the processor's time stamp counter.
func counter() int64
