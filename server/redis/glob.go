package redis

// match reports whether s matches a glob pattern as Redis understands it: '*' any text, '?' any byte, '[a-z]' and '[^a-z]' sets of
// bytes, '\x' the byte x. Its time is at most len(pattern) × len(s): only the last '*' is ever tried again.
func match(pattern, s []byte) bool {
	p, i := 0, 0
	star, from := -1, 0 // the last '*', and where in s the text it stands for ends so far
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, from = p, i
			p++
			continue
		}
		if p < len(pattern) {
			if next, ok := matchByte(pattern, p, s[i]); ok {
				p = next
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, i = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchByte matches one byte with the element at pattern[p] and returns where the next element begins.
func matchByte(pattern []byte, p int, c byte) (next int, ok bool) {
	switch pattern[p] {
	case '?':
		return p + 1, true
	case '[':
		return matchSet(pattern, p+1, c)
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
	}
	return p + 1, pattern[p] == c
}

// matchSet matches one byte with the set whose first byte after '[' is pattern[p]. A set without ']' ends with the pattern.
func matchSet(pattern []byte, p int, c byte) (next int, ok bool) {
	negate := p < len(pattern) && pattern[p] == '^'
	if negate {
		p++
	}
	for ; p < len(pattern) && pattern[p] != ']'; p++ {
		low := pattern[p]
		switch {
		case low == '\\' && p+1 < len(pattern):
			p++
			ok = ok || pattern[p] == c
			continue
		case p+2 < len(pattern) && pattern[p+1] == '-':
			high := pattern[p+2]
			p += 2
			if low > high {
				low, high = high, low
			}
			ok = ok || c >= low && c <= high
		default:
			ok = ok || low == c
		}
	}
	return min(p+1, len(pattern)), ok != negate
}
