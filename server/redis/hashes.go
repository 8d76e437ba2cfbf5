package redis

import (
	"errors"
	"strconv"

	"replicanode/replica"
)

// checkField refuses a field that the store could not hold, before any part of the command takes effect.
func (o *Op) checkField(field, data []byte) string {
	opts := &o.c.server.opts
	if len(o.key())+len(field) > opts.MaxKeyBytes {
		return "ERR key and field together are longer than the limit of " + strconv.Itoa(opts.MaxKeyBytes) + " bytes"
	}
	if len(data) > opts.MaxFieldValueBytes {
		return "ERR the value of a field is longer than the limit of " + strconv.Itoa(opts.MaxFieldValueBytes) + " bytes"
	}
	return ""
}

func prepareHset(o *Op) string {
	if len(o.args)%2 != 0 {
		return "ERR wrong number of arguments for '" + o.cmd.name + "' command"
	}
	for i := 2; i < len(o.args); i += 2 {
		if text := o.checkField(o.args[i], o.args[i+1]); text != "" {
			return text
		}
	}
	return ""
}

func hset(tx Tx, o *Op) error {
	var added int64
	for i := 2; i < len(o.args); i += 2 {
		isNew, err := tx.HashPut(o.key(), o.args[i], o.args[i+1])
		if err != nil {
			return err
		}
		if isNew {
			added++
		}
	}
	if o.cmd.name == "hmset" {
		o.w.OK()
	} else {
		o.w.Int(added)
	}
	return nil
}

func hsetnx(tx Tx, o *Op) error {
	_, exists, err := tx.HashGet(o.key(), o.args[2])
	if err != nil {
		return err
	}
	if exists {
		o.w.Int(0)
		return nil
	}
	o.w.Int(1)
	_, err = tx.HashPut(o.key(), o.args[2], o.args[3])
	return err
}

func hget(r Reader, o *Op) error {
	data, ok, err := r.HashGet(o.key(), o.args[2])
	switch {
	case err != nil:
		return err
	case !ok:
		o.w.Null()
	default:
		o.bulk(data)
	}
	return nil
}

func hmget(v View, o *Op) error {
	o.w.Array(len(o.args) - 2)
	for _, field := range o.args[2:] {
		if err := hgetField(v, o, field); err != nil || o.failed {
			return err
		}
	}
	return nil
}

func hgetField(v View, o *Op, field []byte) error {
	data, ok, err := v.HashGet(o.key(), field)
	switch {
	case err != nil:
		return err
	case !ok:
		if o.room(8) {
			o.w.Null()
		}
	default:
		o.bulk(data)
	}
	return nil
}

func hexists(r Reader, o *Op) error {
	_, ok, err := r.HashGet(o.key(), o.args[2])
	if err != nil {
		return err
	}
	if ok {
		o.w.Int(1)
	} else {
		o.w.Int(0)
	}
	return nil
}

func hdel(tx Tx, o *Op) error {
	var deleted int64
	for _, field := range o.args[2:] {
		existed, err := tx.HashDelete(o.key(), field)
		if err != nil {
			return err
		}
		if existed {
			deleted++
		}
	}
	o.w.Int(deleted)
	return nil
}

func hlen(r Reader, o *Op) error {
	v, ok, err := r.Stat(o.key())
	switch {
	case err != nil:
		return err
	case ok && v.Kind != replica.Hash:
		o.fail(wrongType)
	default:
		o.w.Int(int64(v.Len))
	}
	return nil
}

func prepareHincrby(o *Op) string {
	var ok bool
	if o.number, ok = parseInt(o.args[3]); !ok {
		return errNotInteger
	}
	return o.checkField(o.args[2], nil)
}

func hincrby(tx Tx, o *Op) error {
	data, exists, err := tx.HashGet(o.key(), o.args[2])
	if err != nil {
		return err
	}
	var n int64
	ok := true
	if exists {
		n, ok = parseInt(data)
	}
	if !ok {
		o.fail("ERR hash value is not an integer")
		return nil
	}
	if n, ok = add(n, o.number); !ok {
		o.fail(errOverflow)
		return nil
	}
	var digits [20]byte
	if _, err := tx.HashPut(o.key(), o.args[2], strconv.AppendInt(digits[:0], n, 10)); err != nil {
		return err
	}
	o.w.Int(n)
	return nil
}

func hgetall(v View, o *Op) error { return allFields(v, o, optKeys|optValues) }

func hkeys(v View, o *Op) error { return allFields(v, o, optKeys) }

func hvals(v View, o *Op) error { return allFields(v, o, optValues) }

// errHashLength would be a bug of the store: the reply's header has been written by the hash's length.
var errHashLength = errors.New("hash and its length differ")

func allFields(v View, o *Op, what options) error {
	value, ok, err := v.Stat(o.key())
	if err != nil {
		return err
	}
	if ok && value.Kind != replica.Hash {
		o.fail(wrongType)
		return nil
	}
	if what == optKeys|optValues {
		o.w.Map(int(value.Len))
	} else {
		o.w.Array(int(value.Len))
	}
	if !ok {
		return nil
	}
	var n uint64
	err = v.HashAll(o.key(), func(field, data []byte) bool {
		n++
		if what&optKeys != 0 {
			o.bulk(field)
		}
		if what&optValues != 0 && !o.failed {
			o.bulk(data)
		}
		return !o.failed
	})
	if err == nil && !o.failed && n != value.Len {
		err = errHashLength
	}
	return err
}

func prepareHscan(o *Op) string {
	if _, ok := parseCursor(o.args[2]); !ok {
		return errCursor
	}
	_, text := parseScan(o.args[3:], false)
	return text
}

func hscan(v View, o *Op) error {
	cursor, _ := parseCursor(o.args[2])
	a, _ := parseScan(o.args[3:], false)
	value, ok, err := v.Stat(o.key())
	if err != nil {
		return err
	}
	if ok && value.Kind != replica.Hash {
		o.fail(wrongType)
		return nil
	}
	scratch := o.c.take(o.cmd, o.args)
	defer o.c.recycle(scratch)
	scratch.start, scratch.limit = 0, o.limit
	found, next := 0, uint64(0)
	if ok {
		next, err = v.HashScan(o.key(), cursor, a.count, func(field, data []byte) {
			if scratch.failed || a.match != nil && !match(a.match, field) {
				return
			}
			if scratch.bulk(field); !scratch.failed {
				scratch.bulk(data)
			}
			found += 2
		})
	}
	switch {
	case err != nil:
		return err
	case scratch.failed:
		o.fail("ERR the reply is longer than the limit: use a smaller COUNT")
		return nil
	}
	o.w.Array(2)
	o.w.BulkInt(int64(next))
	o.w.Array(found)
	o.w.Raw(scratch.own.Buf)
	return nil
}
