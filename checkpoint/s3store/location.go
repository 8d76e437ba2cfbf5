package s3store

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// Scheme begins every location.
const Scheme = "s3://"

const (
	minPartBytes     = 5 << 20 // S3's own bound
	maxPartBytes     = 5 << 30
	defaultPartBytes = minPartBytes
)

// Location says where the objects are.
type Location struct {
	Bucket string
	// Prefix of all keys, without slashes at its ends; may be empty.
	Prefix string
	// Host and port of the server. Default s3.amazonaws.com.
	Host string
	// Secure is false for an endpoint that begins with http://.
	Secure bool
	// Region, where the server wants one. Default: asked for.
	Region string
	// CredentialsFile is a file in the format of ~/.aws/credentials, and then the
	// only place that is asked. Default: the environment, then
	// AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials.
	CredentialsFile string
	// PartBytes is the size of an upload's parts and of the memory for each chunk
	// being uploaded, 5 MiB to 5 GiB, default 5 MiB.
	PartBytes int64
	// BytesPerSecond bounds the rate of all uploads together; 0 = no bound.
	BytesPerSecond int64
	// Retries bounds the attempts for each request, 1 to 100, default 10.
	Retries int
}

// Parse reads "s3://bucket[/prefix][?endpoint=URL&region=R&credentials=FILE&part=BYTES&rate=BYTES&retries=N]".
// Errors never repeat what might be a secret.
func Parse(s string) (Location, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return Location{}, errors.New("must be s3://BUCKET[/PREFIX][?endpoint=URL], for example s3://backups/node1?endpoint=https://s3.example.org")
	}
	if u.User != nil {
		return Location{}, errors.New("credentials do not belong into a location, where others can read them: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with credentials=FILE")
	}
	l := Location{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Host: "s3.amazonaws.com", Secure: true, PartBytes: defaultPartBytes, Retries: 10}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Location{}, errors.New("what follows the ? can't be read; it must be NAME=VALUE, joined by &")
	}
	for name, values := range query {
		if err := l.set(name, values[len(values)-1]); err != nil {
			return Location{}, err
		}
	}
	return l, l.validate()
}

func (l *Location) set(name, value string) (err error) {
	switch name {
	case "endpoint":
		return l.setEndpoint(value)
	case "region":
		l.Region = value
	case "credentials":
		l.CredentialsFile = value
	case "part":
		l.PartBytes, err = strconv.ParseInt(value, 10, 64)
	case "rate":
		l.BytesPerSecond, err = strconv.ParseInt(value, 10, 64)
	case "retries":
		l.Retries, err = strconv.Atoi(value)
	default:
		return fmt.Errorf("%q is not known; there are endpoint, region, credentials, part, rate and retries (secrets come from the environment or a file)", name)
	}
	if err != nil {
		return fmt.Errorf("%s must be a whole number", name)
	}
	return nil
}

func (l *Location) setEndpoint(value string) error {
	u, err := url.Parse(value)
	if err != nil || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" || !host(u.Hostname()) {
		return errors.New("endpoint must be http:// or https:// and HOST[:PORT], nothing else")
	}
	if _, err := strconv.ParseUint(u.Port(), 10, 16); err != nil && u.Port() != "" || strings.HasSuffix(u.Host, ":") {
		return errors.New("endpoint: the port must be 1 to 65535")
	}
	l.Host, l.Secure = u.Host, u.Scheme == "https"
	return nil
}

// host tells whether a name can be that of a machine, or its address.
func host(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, letters) != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return len(name) <= 253
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func (l *Location) validate() error {
	if err := s3utils.CheckValidBucketName(l.Bucket); err != nil {
		return fmt.Errorf("BUCKET: %w", err)
	}
	switch {
	case l.PartBytes < minPartBytes || l.PartBytes > maxPartBytes:
		return fmt.Errorf("part must be between %d and %d bytes", minPartBytes, int64(maxPartBytes))
	case l.BytesPerSecond < 0 || l.BytesPerSecond > 1<<40:
		return errors.New("rate must be between 0 (no bound) and 2^40 bytes a second")
	case l.Retries < 1 || l.Retries > 100:
		return errors.New("retries must be between 1 and 100")
	}
	return nil
}
