package s3store

import (
	"net/http"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

// TestUploadsListedByExactNameOnly: an upload that a killed run left is given up although the server lists none below a prefix. Others' are not.
func TestUploadsListedByExactNameOnly(t *testing.T) {
	s := newServer(t)
	_, killed := s.open(t, "")
	core := minio.Core{Client: killed.client}
	for _, key := range []string{killed.key("0001/00000000000000000007/000001.chunk"), "others/0001/7"} {
		_, err := core.NewMultipartUpload(ctx, "backups", key, minio.PutObjectOptions{})
		must(t, err)
	}
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		if !q.Has("uploads") || r.Method != http.MethodGet || q.Get("prefix") == "" {
			return false
		}
		_, _ = w.Write([]byte("<ListMultipartUploadsResult><Bucket>backups</Bucket></ListMultipartUploadsResult>"))
		return true
	})
	store, b := s.open(t, "")
	must(t, store.Clean(ctx, nil, 1))
	s.meddle.Store(nil)
	left, err := b.openUploads(ctx, "", "")
	must(t, err)
	if len(left) != 1 || !strings.HasPrefix(left[0].Key, "others/") {
		t.Errorf("left are %+v", left)
	}
}
