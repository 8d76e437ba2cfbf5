package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxAnswerBytes bounds what a Client reads of one answer.
const maxAnswerBytes = 64 << 20

// Client calls the JSON API of one node. The zero value is not usable; make one with NewClient. It is safe for concurrent use.
type Client struct {
	base     string
	password string
	http     *http.Client
}

// NewClient returns a client for the node whose admin address is addr (host:port). No connection is made yet.
func NewClient(addr, password string) *Client {
	return &Client{
		base:     "http://" + addr,
		password: password,
		http:     &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}},
	}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get asks for path and decodes the answer.
func Get[Out any](ctx context.Context, c *Client, path string) (Out, error) {
	return call[Out](ctx, c, http.MethodGet, path, nil)
}

// Post sends in as JSON to path and decodes the answer.
func Post[Out any](ctx context.Context, c *Client, path string, in any) (Out, error) {
	return call[Out](ctx, c, http.MethodPost, path, in)
}

func call[Out any](ctx context.Context, c *Client, method, path string, in any) (Out, error) {
	var out Out
	var body io.Reader
	if method != http.MethodGet && in == nil {
		in = struct{}{}
	}
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("encode request for %s: %w", path, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return out, fmt.Errorf("make request for %s: %w", path, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.password != "" {
		req.SetBasicAuth("replicanode", c.password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return out, c.unanswered(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return out, fmt.Errorf("read answer of %s: %w", path, err)
	}
	return out, unpack(resp.StatusCode, path, data, &out)
}

// unanswered says why there is no answer, without the noise of HTTP.
func (c *Client) unanswered(err error) error {
	if request := new(url.Error); errors.As(err, &request) {
		err = request.Err
	}
	addr := strings.TrimPrefix(c.base, "http://")
	if strings.Contains(err.Error(), "malformed HTTP") {
		return fmt.Errorf("what listens at %s is no node's admin address: it does not speak HTTP; give the --admin of the node", addr)
	}
	return fmt.Errorf("no answer from the node's admin address %s (is it running, is --admin right?): %w", addr, err)
}

// unpack decodes an answer, or the refusal it carries. A not-ready /readyz is an answer, not a refusal.
func unpack(status int, path string, data []byte, out any) error {
	if status >= 400 {
		refusal := Error{Status: status}
		if err := json.Unmarshal(data, &refusal); err != nil || refusal.Message == "" {
			if status == http.StatusServiceUnavailable && json.Unmarshal(data, out) == nil {
				return nil
			}
			refusal.Message = fmt.Sprintf("status %d from %s", status, path)
		}
		return &refusal
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode answer of %s: %w", path, err)
	}
	return nil
}
