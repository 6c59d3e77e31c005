package auth

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// isoBasic is ISO 8601's basic format, in UTC.
const isoBasic = "20060102T150405Z"

// dateHeader gives the date of a request as its header has it, "" when there is none, and whether it must be in ISO
// 8601: that is so in X-Amz-Date, which comes first, while Date may have either form. Several dates are joined; no
// parser takes the result.
func dateHeader(header http.Header) (date string, iso bool) {
	if values := header["X-Amz-Date"]; len(values) > 0 {
		return strings.Join(values, ","), true
	}
	return strings.Join(header["Date"], ","), false
}

func (s *signed) setDate(date string, iso bool) error {
	// The length is checked because Parse takes fractions of a second where the layout has none.
	t, err := time.Parse(isoBasic, date)
	if err == nil && len(date) == len(isoBasic) {
		s.stamp, s.time = date, t
		return nil
	}
	if iso {
		return badDate(date)
	}
	// RFC 1123 in GMT only: Parse takes every other zone's abbreviation for GMT.
	if t, err = time.Parse(http.TimeFormat, date); err != nil || len(date) != len(http.TimeFormat) {
		return badDate(date)
	}
	s.stamp, s.time = t.Format(isoBasic), t
	return nil
}

// checkSkew checks that date is within skew of now.
func checkSkew(date, now time.Time, skew time.Duration) error {
	now = now.UTC().Truncate(time.Second)
	minutes := func() string { return strconv.FormatFloat(skew.Minutes(), 'f', -1, 64) }
	if oldest := now.Add(-skew); date.Before(oldest) {
		return invalid("Signature expired: %s is now earlier than %s (%s - %s min.)",
			date.Format(isoBasic), oldest.Format(isoBasic), now.Format(isoBasic), minutes())
	}
	if newest := now.Add(skew); date.After(newest) {
		return invalid("Signature not yet current: %s is still later than %s (%s + %s min.)",
			date.Format(isoBasic), newest.Format(isoBasic), now.Format(isoBasic), minutes())
	}
	return nil
}
