// Package s3store keeps checkpoints in any S3-compatible object store.
//
//	location, err := s3store.Parse("s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-1")
//	backend, err := s3store.Open(location)
//	defer backend.Close()
//	store := checkpoint.NewStoreAt(backend)
//
// The objects are those of a folder, below the prefix: 0003/<decree>/000001.chunk,
// 0003/<decree>/MANIFEST.json, nodes/<name>.json. There is no rename in such a
// store. What makes a checkpoint exist is its manifest, which is one object, is
// stored last and removed first: whatever lies in a checkpoint's place without a
// manifest is what an interrupted run left, and Clean removes it, uploads that
// were never completed included.
//
// Chunks are uploaded in parts while they are made, so that one chunk takes one
// part of memory. Each request carries the MD5 of its bytes, which the server
// checks before it stores anything, and is retried with growing waits; before the
// manifest is stored, the sizes of all chunks are held against what was sent.
// Reads that break off are resumed, of the same object or not at all.
//
// Credentials come from the file that the location names, in the format of
// ~/.aws/credentials, or else from the environment (AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY, or MINIO_ROOT_USER and MINIO_ROOT_PASSWORD) or from
// ~/.aws/credentials itself; a location that holds any is refused.
// Neither errors nor paths show them.
//
// Two nodes must not share a prefix.
package s3store
