package peer

import (
	"strings"

	"google.golang.org/grpc/status"
)

// callError is a failed call as people read it; the status stays for programs.
type callError struct {
	text string
	err  error
}

func (e *callError) Error() string { return e.text }

func (e *callError) Unwrap() error { return e.err }

// Plain takes from the error of a call or a stream what only the transport says of itself: "dial tcp 10.0.0.7:7380: connect: connection
// refused" is left of a node that is not there. Errors that did not come from the transport stay as they are.
func Plain(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	text := s.Message()
	if _, quoted, found := strings.Cut(text, `connection error: desc = "`); found {
		text = strings.TrimSuffix(quoted, `"`)
	}
	for _, noise := range []string{"transport: Error while dialing: ", "transport: ", "error reading from server: "} {
		text = strings.TrimPrefix(text, noise)
	}
	if text == "" {
		text = s.Code().String()
	}
	return &callError{text, err}
}
