package redis

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"replicanode/replica"
	"replicanode/server/resp"
)

// options are what a command's words ask for.
type options uint16

const (
	optNX options = 1 << iota
	optXX
	optGT
	optLT
	optGet
	optKeepTTL
	optExpire   // number is a time to expire at, or after
	optAbsolute // it is a time to expire at
	optValues   // fields with their values
	optKeys     // fields or keys alone
)

// checkKey refuses what the store could not hold, before any part of the command takes effect.
func (o *Op) checkKey(key []byte) string {
	if limit := o.c.server.opts.MaxKeyBytes; len(key) > limit {
		return "ERR the key is longer than the limit of " + strconv.Itoa(limit) + " bytes"
	}
	return ""
}

func prepareKey(o *Op) string { return o.checkKey(o.key()) }

// bulk answers with a value.
func (o *Op) bulk(data []byte) {
	if o.room(len(data) + 32) {
		o.w.Bulk(data)
	}
}

func get(r Reader, o *Op) error {
	v, ok, err := r.Get(o.key())
	switch {
	case err != nil:
		return err
	case !ok:
		o.w.Null()
	case v.Kind != replica.String:
		o.fail(wrongType)
	default:
		o.bulk(v.Data)
	}
	return nil
}

func strlen(r Reader, o *Op) error {
	v, ok, err := r.Stat(o.key())
	switch {
	case err != nil:
		return err
	case ok && v.Kind != replica.String:
		o.fail(wrongType)
	default:
		o.w.Int(int64(v.Len))
	}
	return nil
}

// expireTime turns a time, to live or to expire at, into milliseconds, and refuses one that is too far from now to be represented.
func expireTime(n int64, seconds, absolute bool) (ms int64, ok bool) {
	if seconds {
		if n > math.MaxInt64/1000 || n < math.MinInt64/1000 {
			return 0, false
		}
		n *= 1000
	}
	return n, absolute || n <= math.MaxInt64-time.Now().UnixMilli()
}

// deadline is when a key expires that a command gave a time to; 0 without one. It is in the past for a time that is.
func (o *Op) deadline(now uint64) uint64 {
	switch at, fits := add(int64(now), o.number); {
	case o.options&optExpire == 0:
		return 0
	case o.options&optAbsolute != 0:
		return uint64(max(o.number, 1))
	case !fits:
		return math.MaxInt64
	default:
		return uint64(max(at, 1))
	}
}

// prepareSet parses SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]. A word may come twice, as in Redis.
func prepareSet(o *Op) string {
	var unit, until []byte
	for i := 3; i < len(o.args); i++ {
		switch arg := o.args[i]; {
		case is(arg, "NX") && o.options&optXX == 0:
			o.options |= optNX
		case is(arg, "XX") && o.options&optNX == 0:
			o.options |= optXX
		case is(arg, "GET"):
			o.options |= optGet
		case is(arg, "KEEPTTL") && unit == nil:
			o.options |= optKeepTTL
		case (is(arg, "EX") || is(arg, "PX") || is(arg, "EXAT") || is(arg, "PXAT")) && o.options&optKeepTTL == 0 && i+1 < len(o.args):
			if unit != nil && !bytes.EqualFold(unit, arg) {
				return errSyntax
			}
			i++
			unit, until = arg, o.args[i]
		default:
			return errSyntax
		}
	}
	if unit != nil {
		o.options |= optExpire
		if len(unit) == len("EXAT") {
			o.options |= optAbsolute
		}
		if text := o.positiveTime(until, unit[0]|0x20 == 'e', o.options&optAbsolute != 0); text != "" {
			return text
		}
	}
	return o.checkKey(o.key())
}

// positiveTime parses the time of SET and SETEX into number.
func (o *Op) positiveTime(arg []byte, seconds, absolute bool) string {
	n, ok := parseInt(arg)
	if !ok {
		return errNotInteger
	}
	if o.number, ok = expireTime(n, seconds, absolute); !ok || n <= 0 {
		return "ERR invalid expire time in '" + o.cmd.name + "' command"
	}
	return ""
}

func set(tx Tx, o *Op) error {
	key, conditional := o.key(), o.options&(optNX|optXX|optGet|optKeepTTL) != 0
	at := o.deadline(tx.NowMs())
	if conditional {
		old, exists, err := tx.Get(key)
		if err != nil {
			return err
		}
		if o.options&optGet != 0 {
			switch {
			case exists && old.Kind != replica.String:
				o.fail(wrongType)
				return nil
			case exists:
				if o.bulk(old.Data); o.failed {
					return nil
				}
			default:
				o.w.Null()
			}
		}
		if exists && o.options&optNX != 0 || !exists && o.options&optXX != 0 {
			if o.options&optGet == 0 {
				o.w.Null()
			}
			return nil
		}
		if o.options&optKeepTTL != 0 {
			at = old.ExpireAt
		}
	}
	if err := putUntil(tx, key, o.args[2], at); err != nil {
		return err
	}
	if o.options&optGet == 0 {
		o.w.OK()
	}
	return nil
}

// putUntil sets a key; one that is to expire in the past it deletes.
func putUntil(tx Tx, key, data []byte, at uint64) error {
	if at != 0 && at <= tx.NowMs() {
		_, err := tx.Delete(key)
		return err
	}
	return tx.Put(key, data, at)
}

func setnx(tx Tx, o *Op) error {
	_, exists, err := tx.Stat(o.key())
	if err != nil {
		return err
	}
	if exists {
		o.w.Int(0)
		return nil
	}
	if err := tx.Put(o.key(), o.args[2], 0); err != nil {
		return err
	}
	o.w.Int(1)
	return nil
}

func prepareSetex(o *Op) string {
	o.options = optExpire
	if text := o.positiveTime(o.args[2], o.cmd.name == "setex", false); text != "" {
		return text
	}
	return o.checkKey(o.key())
}

func setex(tx Tx, o *Op) error {
	if err := tx.Put(o.key(), o.args[3], o.deadline(tx.NowMs())); err != nil {
		return err
	}
	o.w.OK()
	return nil
}

func getdel(tx Tx, o *Op) error {
	if err := get(tx, o); err != nil || o.failed {
		return err
	}
	_, err := tx.Delete(o.key())
	return err
}

func appendTo(tx Tx, o *Op) error {
	v, ok, err := tx.Get(o.key())
	switch {
	case err != nil:
		return err
	case ok && v.Kind != replica.String:
		o.fail(wrongType)
		return nil
	case len(v.Data)+len(o.args[2]) > o.c.server.opts.Limits.MaxBulkBytes:
		o.fail("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
		return nil
	}
	data := make([]byte, 0, len(v.Data)+len(o.args[2]))
	data = append(append(data, v.Data...), o.args[2]...)
	if err := tx.Put(o.key(), data, v.ExpireAt); err != nil {
		return err
	}
	o.w.Int(int64(len(data)))
	return nil
}

func prepareIncr(o *Op) string {
	o.number = 1
	return o.checkKey(o.key())
}

func prepareDecr(o *Op) string {
	o.number = -1
	return o.checkKey(o.key())
}

func prepareIncrBy(o *Op) string {
	var ok bool
	if o.number, ok = parseInt(o.args[2]); !ok {
		return errNotInteger
	}
	return o.checkKey(o.key())
}

func prepareDecrBy(o *Op) string {
	n, ok := parseInt(o.args[2])
	if !ok {
		return errNotInteger
	}
	if o.number = -n; n != 0 && o.number == n {
		return "ERR decrement would overflow"
	}
	return o.checkKey(o.key())
}

// incr logs the sum, not the addend: a mutation can be applied again.
func incr(tx Tx, o *Op) error {
	v, ok, err := tx.Get(o.key())
	if err != nil {
		return err
	}
	var n int64
	if ok {
		if v.Kind != replica.String {
			o.fail(wrongType)
			return nil
		}
		if n, ok = parseInt(v.Data); !ok {
			o.fail(errNotInteger)
			return nil
		}
	}
	if n, ok = add(n, o.number); !ok {
		o.fail(errOverflow)
		return nil
	}
	var digits [20]byte
	if err := tx.Put(o.key(), strconv.AppendInt(digits[:0], n, 10), v.ExpireAt); err != nil {
		return err
	}
	o.w.Int(n)
	return nil
}

// mget writes this part's values one behind the other, and where each ends.
func mget(r Reader, o *Op) error {
	for _, i := range o.keys {
		v, ok, err := r.Get(o.args[i])
		switch {
		case err != nil:
			return err
		case !ok || v.Kind != replica.String:
			o.w.Null()
		default:
			if o.bulk(v.Data); o.failed {
				return nil
			}
		}
		o.ends = append(o.ends, o.w.Len())
	}
	return nil
}

// mergeValues takes the parts' values in the order of the keys.
func mergeValues(w *resp.Reply, o *Op) {
	w.Array(len(o.args) - 1)
	if len(o.parts) == 1 {
		w.Raw(o.parts[0].own.Buf)
		return
	}
	for _, part := range o.parts {
		o.c.partOf[part.partition] = part
	}
	for _, key := range o.args[1:] {
		part := o.c.partOf[o.c.server.opts.Store.Route(key)]
		from := 0
		if part.next > 0 {
			from = part.ends[part.next-1]
		}
		w.Raw(part.own.Buf[from:part.ends[part.next]])
		part.next++
	}
	for _, part := range o.parts {
		o.c.partOf[part.partition] = nil
	}
}

func prepareMset(o *Op) string {
	if len(o.args)%2 == 0 {
		return "ERR wrong number of arguments for 'mset' command"
	}
	for i := 1; i < len(o.args); i += 2 {
		if text := o.checkKey(o.args[i]); text != "" {
			return text
		}
	}
	return ""
}

func mset(tx Tx, o *Op) error {
	for _, i := range o.keys {
		if err := tx.Put(o.args[i], o.args[i+1], 0); err != nil {
			return err
		}
	}
	return nil
}

func mergeOK(w *resp.Reply, _ *Op) { w.OK() }
