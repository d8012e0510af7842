// Package payload checks what clients post, by the intake policy of a service: content type, JSON, required fields, JSON Schema, JSON-RPC
// and signature. It changes nothing: the very bytes are forwarded. It has no I/O, no clock and no logs.
//
// A Checker is compiled once for a service and a topology. Each payload is read in one pass by a scanner that allocates nothing; simple
// schemas are compiled to rules that the scanner applies on its way. For other schemas the payload is also decoded and validated by
// santhosh-tekuri/jsonschema, with a bound on the work.
//
//	checker, err := payload.Compile(&service.Intake) // once
//	err = checker.Type(contentType)                  // 415
//	err = payload.Signed(service.Intake.Signature, body, signature, timestamp, secret, now)
//	err = checker.Check(body)                        // 400
//
// The size of a body is the caller's to bound, by max_body_bytes.
package payload
