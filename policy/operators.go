package policy

import (
	"cmp"
	"encoding/base64"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// comparison is how an operator compares a value of the request with one of the policy.
type comparison uint8

// The comparisons.
const (
	noComparison comparison = iota
	equalText
	equalFold // without regard to case
	likeText  // with * and ?
	likeARN   // likewise, each of the six parts of an ARN by itself
	ofNumbers
	ofTimes
	ofBools
	ofBinaries
	inNetwork
	existence // asks whether a key has a value at all, and so has no IfExists
)

// order is which outcome of comparing numbers or times an operator wants.
type order uint8

// The orders.
const (
	equal order = iota
	less
	lessEqual
	greater
	greaterEqual
)

// operator is a condition operator: a comparison, or its opposite.
type operator struct {
	comparison comparison
	order      order
	negated    bool
}

// operators are the condition operators of the policy language.
var operators = map[string]operator{
	"StringEquals":              {comparison: equalText},
	"StringNotEquals":           {comparison: equalText, negated: true},
	"StringEqualsIgnoreCase":    {comparison: equalFold},
	"StringNotEqualsIgnoreCase": {comparison: equalFold, negated: true},
	"StringLike":                {comparison: likeText},
	"StringNotLike":             {comparison: likeText, negated: true},
	"NumericEquals":             {comparison: ofNumbers},
	"NumericNotEquals":          {comparison: ofNumbers, negated: true},
	"NumericLessThan":           {comparison: ofNumbers, order: less},
	"NumericLessThanEquals":     {comparison: ofNumbers, order: lessEqual},
	"NumericGreaterThan":        {comparison: ofNumbers, order: greater},
	"NumericGreaterThanEquals":  {comparison: ofNumbers, order: greaterEqual},
	"DateEquals":                {comparison: ofTimes},
	"DateNotEquals":             {comparison: ofTimes, negated: true},
	"DateLessThan":              {comparison: ofTimes, order: less},
	"DateLessThanEquals":        {comparison: ofTimes, order: lessEqual},
	"DateGreaterThan":           {comparison: ofTimes, order: greater},
	"DateGreaterThanEquals":     {comparison: ofTimes, order: greaterEqual},
	"Bool":                      {comparison: ofBools},
	"BinaryEquals":              {comparison: ofBinaries},
	"IpAddress":                 {comparison: inNetwork},
	"NotIpAddress":              {comparison: inNetwork, negated: true},
	"ArnEquals":                 {comparison: likeARN},
	"ArnLike":                   {comparison: likeARN},
	"ArnNotEquals":              {comparison: likeARN, negated: true},
	"ArnNotLike":                {comparison: likeARN, negated: true},
	"Null":                      {comparison: existence},
}

// textual tells of the comparisons whose values may have variables, and of them which have wildcards.
func (c comparison) textual() (variables, wildcards bool) {
	switch c {
	case equalText, equalFold:
		return true, false
	case likeText, likeARN:
		return true, true
	}
	return false, false
}

// literal is a value of a condition, read for its operator. Text is not in it: it is a template.
type literal struct {
	number  float64
	time    time.Time
	network netip.Prefix
	flag    bool
	binary  string // in base64
}

// parseLiteral reads a value of a policy, and fails if it is not of the kind that is compared.
func parseLiteral(c comparison, value string) (l literal, ok bool) {
	switch c {
	case ofNumbers:
		l.number, ok = parseNumber(value)
	case ofTimes:
		l.time, ok = parseTime(value)
	case ofBools, existence:
		l.flag, ok = parseBool(value)
	case ofBinaries:
		l.binary = value
		_, err := base64.StdEncoding.Strict().DecodeString(value)
		ok = err == nil && !strings.ContainsAny(value, "\r\n")
	case inNetwork:
		l.network, ok = parseNetwork(value)
	default: // any text will do
		ok = true
	}
	return l, ok
}

// matches compares with a value of a request. A value that is not of the kind that is compared matches nothing.
func (l *literal) matches(o operator, have item) bool {
	switch o.comparison {
	case ofNumbers:
		number, ok := parseNumber(have.text)
		if have.moment {
			number, ok = float64(have.time.Unix()), true
		}
		return ok && o.order.holds(cmp.Compare(number, l.number))
	case ofTimes:
		moment, ok := have.time, have.moment
		if !ok {
			moment, ok = parseTime(have.text)
		}
		return ok && o.order.holds(moment.Compare(l.time))
	case ofBools:
		flag, ok := parseBool(have.text)
		return ok && flag == l.flag
	case ofBinaries:
		return have.text == l.binary
	case inNetwork:
		address, err := netip.ParseAddr(have.text)
		return err == nil && l.network.Contains(address.Unmap().WithZone(""))
	}
	return false
}

// holds tells whether the outcome of a comparison is one that is wanted.
func (o order) holds(outcome int) bool {
	switch o {
	case less:
		return outcome < 0
	case lessEqual:
		return outcome <= 0
	case greater:
		return outcome > 0
	case greaterEqual:
		return outcome >= 0
	}
	return outcome == 0
}

// parseNumber reads a decimal number; what else Go calls a number, such as Inf and 0x1p-2, is none.
func parseNumber(text string) (float64, bool) {
	if strings.Trim(text, "0123456789+-.eE") != "" {
		return 0, false
	}
	number, err := strconv.ParseFloat(text, 64)
	return number, err == nil
}

// epoch is a time in seconds since 1970.
var epoch = regexp.MustCompile(`^-?[0-9]{1,12}(\.0+)?$`)

// timeLayouts are the forms of times in W3C's profile of ISO 8601, but for years alone: those would be epoch times.
var timeLayouts = []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02", "2006-01"}

func parseTime(text string) (time.Time, bool) {
	if epoch.MatchString(text) {
		whole, _, _ := strings.Cut(text, ".")
		seconds, err := strconv.ParseInt(whole, 10, 64)
		return time.Unix(seconds, 0), err == nil
	}
	for _, layout := range timeLayouts {
		if moment, err := time.Parse(layout, text); err == nil {
			return moment, true
		}
	}
	return time.Time{}, false
}

func parseBool(text string) (value, ok bool) {
	value = strings.EqualFold(text, "true")
	return value, value || strings.EqualFold(text, "false")
}

// parseNetwork reads an address or a network in CIDR notation. Bits of the host are not looked at.
func parseNetwork(text string) (netip.Prefix, bool) {
	if network, err := netip.ParsePrefix(text); err == nil {
		return network.Masked(), !network.Addr().Is4In6()
	}
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return netip.Prefix{}, false
	}
	address = address.Unmap()
	return netip.PrefixFrom(address, address.BitLen()), true
}
