// Package browser judges the page over a dump by a real Chromium: it is driven as
// a person drives it, by keys and by the pointer, against a real `promdump open`
// on real dumps. Whatever a test does, the browser must have logged no error, and
// asked nobody but the server.
//
//	go test ./browser                                      half a minute
//	PROMDUMP_E2E_SCREENSHOTS=DIR go test -run Screenshots ./browser   the pictures of docs/img, and more to look at
//
// Chromium is Debian's package of that name, or the program that
// PROMDUMP_E2E_CHROMIUM names. Where there is none the tests are skipped with a
// word, and fail with PROMDUMP_E2E_REQUIRE_BROWSER=1.
package browser
