package contract

import (
	"maps"
	"slices"
	"testing"
)

// TestPermissions calls every operation as a user who has every permission but one that the operation needs, once for each of
// those, and then as one who has these and no other.
func TestPermissions(t *testing.T) {
	s := one()
	g := newRig(t, s)
	who := s.NewUserOf(t, g.root, "caller", "")
	for operation := range model(t).Operations {
		if _, made := makers[operation]; !made {
			s.PostAs(t, g.root, operation, "{}").RequireRefusal(t, "UnsupportedOperationException", "The operation "+operation+" is not supported.")
		}
	}
	for _, operation := range slices.Sorted(maps.Keys(makers)) {
		for _, c := range makers[operation](g) {
			var exactly []statement
			for _, missing := range c.needs {
				lacking := []statement{{"Effect": "Allow", "NotAction": missing.permission, "Resource": "*"}}
				if missing.resource != "" {
					lacking = append(lacking, statement{"Effect": "Allow", "Action": missing.permission, "NotResource": missing.resource})
				}
				g.root.PutUserPolicy(t, "caller", document(t, lacking...))
				s.PostAs(t, who, c.operation, c.body).RequireRefusal(t, "AccessDeniedException",
					deniedText(g.userARN("caller"), missing.permission, missing.resource, silentText("identity-based", missing.permission)))
				resource := missing.resource
				if resource == "" {
					resource = "*"
				}
				exactly = append(exactly, allow(missing.permission, resource))
			}
			g.root.PutUserPolicy(t, "caller", document(t, exactly...))
			c.requireSuccess(t, s.PostAs(t, who, c.operation, c.body))
		}
	}
}
