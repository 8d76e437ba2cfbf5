package resp

// ErrorKind says which rule of the protocol or which limit a request broke.
type ErrorKind uint8

const (
	// BadCount is a malformed or too great argument count.
	BadCount ErrorKind = iota
	// BadLength is a malformed or too great argument length.
	BadLength
	// BadType is a byte other than '$' where an argument begins.
	BadType
	// BadEnd is an argument or header that does not end with \r\n.
	BadEnd
	// LongHeader is a header line without an end.
	LongHeader
	// LongInline is an inline request beyond the limit.
	LongInline
	// BadQuotes is an inline request with unbalanced quotes.
	BadQuotes
	// LongRequest is a request beyond the limit as a whole.
	LongRequest
	// NoMemory is a request for which the shared Budget has no room.
	NoMemory

	errorKinds
)

var kindNames = [errorKinds]string{
	BadCount: "bad_count", BadLength: "bad_length", BadType: "bad_type", BadEnd: "bad_end", LongHeader: "long_header",
	LongInline: "long_inline", BadQuotes: "bad_quotes", LongRequest: "long_request", NoMemory: "no_memory",
}

// ErrorKinds lists all kinds.
func ErrorKinds() []ErrorKind {
	kinds := make([]ErrorKind, errorKinds)
	for i := range kinds {
		kinds[i] = ErrorKind(i)
	}
	return kinds
}

// String is the kind's name in metrics and logs.
func (k ErrorKind) String() string {
	if k < errorKinds {
		return kindNames[k]
	}
	return "unknown"
}

// ProtocolError is a request that cannot be read. What follows it in the stream has no meaning: the connection must end.
type ProtocolError struct {
	// Kind is the rule or limit that was broken.
	Kind ErrorKind
	// Text is the reply for the client, without the leading '-'.
	Text string
}

// Error returns the reply's text.
func (e *ProtocolError) Error() string { return e.Text }

func protocolError(kind ErrorKind, text string) error {
	return &ProtocolError{Kind: kind, Text: "ERR Protocol error: " + text}
}
