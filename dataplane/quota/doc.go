// Package quota admits requests of API keys, so that the PoPs together never admit more for a key in a window than its quota.
//
// Windows are numbered, and one number is for all keys: that of the record quota/window. Whoever has watched a window for a minute on its
// own monotonic clock opens the next one by compare-and-swap. No wall clock is asked, but once: for the first number that there ever is.
//
// A PoP takes grants from a record of the key and the window, by compare-and-swap, before it runs out, and admits requests from them
// without asking anybody. A grant is good for its window alone; nobody takes it back; what is not used of it is lost, at a restart too, and
// so is one whose answer was lost. So the sum that is admitted for a number is at most the quota, whoever crashes, is stopped, is cut off,
// or has a bad clock.
//
// A PoP that hears nothing of the windows any more goes on by its own clock with the small slices that it has taken ahead for the next two
// windows, and then with nothing.
//
// Of a quota that is too small to be shared, one PoP takes the grants, the home of the key, and gives others of them when they ask (Homes).
// It is a PoP like all others: nothing is wrong when two hold themselves to be it, or none can be reached.
//
// The clock, the records and the accounts are pure: they are told the time. Ledger is what goes on around them: one exchange with the store
// at a time, which carries what many keys ask for.
//
//	ledger := quota.New(quota.Config{PoP: "sin1", Store: quota.NewEtcdStore(client, "/isochrone/")})
//	go ledger.Run(ctx)
//	decision, err := ledger.Admit(ctx, keyID, key.QuotaPerMinute, time.Now())
package quota
