// Package silent has the tests of networks that drop packets without a word: each
// role is a process in a network namespace of its own, behind one router, which
// swallows what two of them send each other. Nobody hears of an end.
package silent
