package policy

import "strings"

// ConditionKey is a condition key that the policy language has here, without regard to the case it was written in. Others
// have no value in any request.
type ConditionKey uint8

// The condition keys that a Request answers by itself: Values is never asked for them.
const (
	unknownKey ConditionKey = iota

	KeyPrincipalARN
	KeyPrincipalAccount
	KeyPrincipalType
	KeyPrincipalIsAWSService
	KeyPrincipalTag
	KeyUserID
	KeyUsername
	KeyTokenIssueTime
	KeyMultiFactorAuthPresent
	KeySourceIdentity
	KeyViaAWSService
	KeyResourceAccount
	KeyCallerAccount
	KeyGrantIsForAWSResource
	KeyEpochTime
	KeyEncryptionContext
	KeyEncryptionContextKeys
	KeyGrantConstraintType
	KeyGrantOperations
	KeyGranteePrincipal
	KeyRetiringPrincipal
)

// The condition keys that Values is asked for.
const (
	KeyCurrentTime ConditionKey = iota + keyOfValues
	KeyReferer
	KeyRequestTag
	KeyRequestedRegion
	KeyResourceTag
	KeySecureTransport
	KeySourceIP
	KeyTagKeys
	KeyUserAgent

	KeyBypassPolicyLockoutSafetyCheck
	KeyDataKeyPairSpec
	KeyEncryptionAlgorithm
	KeyExpirationModel
	KeyKeyAgreementAlgorithm
	KeyKeyOrigin
	KeyKeySpec
	KeyKeyUsage
	KeyMacAlgorithm
	KeyMessageType
	KeyMultiRegion
	KeyMultiRegionKeyType
	KeyPrimaryRegion
	KeyReEncryptOnSameKey
	KeyReplicaRegion
	KeyRequestAlias
	KeyResourceAliases
	KeyRotationPeriodInDays
	KeyScheduleKeyDeletionPendingWindowInDays
	KeySigningAlgorithm
	KeyValidTo
	KeyViaService
	KeyWrappingAlgorithm
	KeyWrappingKeySpec

	KeyIAMPermissionsBoundary
	KeyIAMPolicyARN
	KeyIAMResourceTag
	KeySTSExternalID
	KeySTSRoleSessionName
	KeySTSSourceIdentity
	KeySTSTransitiveTagKeys
)

// keyOfValues is the first key of those that Values is asked for.
const keyOfValues = 64

// keyNames are the names of the condition keys. Those that end in a slash or a colon are families: the rest of the name
// stands behind it.
var keyNames = map[ConditionKey]string{ //nolint:gosec // names, not credentials
	KeyPrincipalARN:           "aws:PrincipalArn",
	KeyPrincipalAccount:       "aws:PrincipalAccount",
	KeyPrincipalType:          "aws:PrincipalType",
	KeyPrincipalIsAWSService:  "aws:PrincipalIsAWSService",
	KeyPrincipalTag:           "aws:PrincipalTag/",
	KeyUserID:                 "aws:userid",
	KeyUsername:               "aws:username",
	KeyTokenIssueTime:         "aws:TokenIssueTime",
	KeyMultiFactorAuthPresent: "aws:MultiFactorAuthPresent",
	KeySourceIdentity:         "aws:SourceIdentity",
	KeyViaAWSService:          "aws:ViaAWSService",
	KeyResourceAccount:        "aws:ResourceAccount",
	KeyCallerAccount:          "kms:CallerAccount",
	KeyGrantIsForAWSResource:  "kms:GrantIsForAWSResource",
	KeyEpochTime:              "aws:EpochTime",
	KeyEncryptionContext:      "kms:EncryptionContext:",
	KeyEncryptionContextKeys:  "kms:EncryptionContextKeys",
	KeyGrantConstraintType:    "kms:GrantConstraintType",
	KeyGrantOperations:        "kms:GrantOperations",
	KeyGranteePrincipal:       "kms:GranteePrincipal",
	KeyRetiringPrincipal:      "kms:RetiringPrincipal",

	KeyCurrentTime:     "aws:CurrentTime",
	KeyReferer:         "aws:Referer",
	KeyRequestTag:      "aws:RequestTag/",
	KeyRequestedRegion: "aws:RequestedRegion",
	KeyResourceTag:     "aws:ResourceTag/",
	KeySecureTransport: "aws:SecureTransport",
	KeySourceIP:        "aws:SourceIp",
	KeyTagKeys:         "aws:TagKeys",
	KeyUserAgent:       "aws:UserAgent",

	KeyBypassPolicyLockoutSafetyCheck:         "kms:BypassPolicyLockoutSafetyCheck",
	KeyDataKeyPairSpec:                        "kms:DataKeyPairSpec",
	KeyEncryptionAlgorithm:                    "kms:EncryptionAlgorithm",
	KeyExpirationModel:                        "kms:ExpirationModel",
	KeyKeyAgreementAlgorithm:                  "kms:KeyAgreementAlgorithm",
	KeyKeyOrigin:                              "kms:KeyOrigin",
	KeyKeySpec:                                "kms:KeySpec",
	KeyKeyUsage:                               "kms:KeyUsage",
	KeyMacAlgorithm:                           "kms:MacAlgorithm",
	KeyMessageType:                            "kms:MessageType",
	KeyMultiRegion:                            "kms:MultiRegion",
	KeyMultiRegionKeyType:                     "kms:MultiRegionKeyType",
	KeyPrimaryRegion:                          "kms:PrimaryRegion",
	KeyReEncryptOnSameKey:                     "kms:ReEncryptOnSameKey",
	KeyReplicaRegion:                          "kms:ReplicaRegion",
	KeyRequestAlias:                           "kms:RequestAlias",
	KeyResourceAliases:                        "kms:ResourceAliases",
	KeyRotationPeriodInDays:                   "kms:RotationPeriodInDays",
	KeyScheduleKeyDeletionPendingWindowInDays: "kms:ScheduleKeyDeletionPendingWindowInDays",
	KeySigningAlgorithm:                       "kms:SigningAlgorithm",
	KeyValidTo:                                "kms:ValidTo",
	KeyViaService:                             "kms:ViaService",
	KeyWrappingAlgorithm:                      "kms:WrappingAlgorithm",
	KeyWrappingKeySpec:                        "kms:WrappingKeySpec",

	KeyIAMPermissionsBoundary: "iam:PermissionsBoundary",
	KeyIAMPolicyARN:           "iam:PolicyARN",
	KeyIAMResourceTag:         "iam:ResourceTag/",
	KeySTSExternalID:          "sts:ExternalId",
	KeySTSRoleSessionName:     "sts:RoleSessionName",
	KeySTSSourceIdentity:      "sts:SourceIdentity",
	KeySTSTransitiveTagKeys:   "sts:TransitiveTagKeys",
}

// lasting are the keys whose values depend on nothing but who calls and on what of the KMS key never changes: they are the same
// for the caller's next request about it.
var lasting = map[ConditionKey]bool{
	KeyPrincipalARN: true, KeyPrincipalAccount: true, KeyPrincipalType: true, KeyPrincipalIsAWSService: true, KeyPrincipalTag: true,
	KeyUserID: true, KeyUsername: true, KeyViaAWSService: true, KeyResourceAccount: true, KeyCallerAccount: true,
	KeyRequestedRegion: true, KeyKeyOrigin: true, KeyKeySpec: true, KeyKeyUsage: true, KeyMultiRegion: true,
}

// keysByName has the condition keys by their names in lower case.
var keysByName = func() map[string]ConditionKey {
	all := make(map[string]ConditionKey, len(keyNames))
	for key, name := range keyNames {
		all[strings.ToLower(name)] = key
	}
	return all
}()

// String gives the name as AWS writes it; that of a family ends in a slash or a colon.
func (k ConditionKey) String() string { return keyNames[k] }

// conditionKeyOf finds a condition key by its name, without regard to case. rest is what stands behind the name of a
// family, as it was written.
func conditionKeyOf(name string) (key ConditionKey, rest string) {
	if key, known := keysByName[strings.ToLower(name)]; known {
		if isFamily(key) {
			return unknownKey, ""
		}
		return key, ""
	}
	const longest = 32 // of the names of families, and more
	for i := range min(len(name), longest) {
		if name[i] != ':' && name[i] != '/' {
			continue
		}
		if key, known := keysByName[strings.ToLower(name[:i+1])]; known {
			return key, name[i+1:]
		}
	}
	return unknownKey, ""
}

func isFamily(key ConditionKey) bool {
	return strings.HasSuffix(keyNames[key], "/") || strings.HasSuffix(keyNames[key], ":")
}
