package kms

import (
	"strconv"
	"time"
)

// Timestamp is a point in time as AWS JSON 1.1 writes it: seconds since the Unix epoch, with milliseconds as a fraction.
type Timestamp struct{ time.Time }

// MarshalJSON writes the seconds since the Unix epoch, rounded down to the millisecond.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	ms := t.UnixMilli()
	return strconv.AppendFloat(nil, float64(ms)/1000, 'f', -1, 64), nil
}
