package replica

// Command is one client operation on one partition.
//
// A partition runs the Execute calls of its commands one after another, in the order in which they were proposed,
// each against the state that every earlier command left, committed or not. The writes of many commands become one
// mutation: one log entry, one decree.
type Command interface {
	// Execute reads and writes through tx, which is valid during the call only, as is everything read from it. It
	// runs on the partition's own goroutine, so it must not block. It may run without Finish(nil) following. When it
	// panics, its writes are discarded and the command finishes with a PanicError.
	Execute(tx *Tx)
	// Finish is called exactly once, after Execute or without it. nil: everything that Execute wrote, and everything
	// that it could have read, is durable, committed and applied. It must not block and must not call into the
	// replica package except Propose.
	Finish(err error)
}

// Kind is the kind of a key's value.
type Kind uint8

const (
	// None is the kind of an absent key.
	None Kind = iota
	// String is a byte string.
	String
	// Hash is a map from fields to byte strings.
	Hash
)

// String is the kind's name as the TYPE command gives it.
func (k Kind) String() string {
	switch k {
	case String:
		return "string"
	case Hash:
		return "hash"
	}
	return "none"
}

// Value is what a key holds.
type Value struct {
	Kind Kind
	// Data is a string's bytes; nil for a hash. It must not be changed, and is valid only inside the Execute or View
	// that read it.
	Data []byte
	// ExpireAt is when the key ceases to be, in milliseconds since 1970; 0 is never.
	ExpireAt uint64
	// Len is the number of a hash's fields, or of a string's bytes.
	Len uint64
}
