// Package geo reads geo databases (GeoIP2 and GeoLite2, City, Enterprise or Country, as mmdb) for package router: networks
// and the places of their clients.
//
// A built-in database knows countries only; see NOTICE for its origin, its licence and its authors' warning. Package
// router/geo/gen makes it. A client whose country alone is known is placed at the weighted mean of the country's metros
// with blockchain nodes (package router/rtt), or else at the country's centroid.
package geo
