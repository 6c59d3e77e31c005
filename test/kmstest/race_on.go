//go:build race

package kmstest

// raceFlag makes the server under test a race-detecting one when the test is.
const raceFlag = "-race=true"
