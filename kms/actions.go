package kms

// action is an operation as authorization sees it.
type action struct {
	// permission is the name in policies, without kms:.
	permission string
	// states says in which key states the operation is allowed.
	states row
	// aliases tells whether the key may be named by an alias.
	aliases bool
	// foreign tells whether the key may be one of another account.
	foreign bool
	// usage is what the key must be for; empty if it does not matter.
	usage KeyUsage
}

// The actions on keys, by permission: the one table of what each operation does in each state. ReEncrypt has two rows.
// Operations that name no key (ListKeys, GenerateRandom) have none.
var (
	actionCancelKeyDeletion         = action{permission: "CancelKeyDeletion", states: canceling}
	actionCreateAlias               = action{permission: "CreateAlias", states: unlessDying}
	actionCreateGrant               = action{permission: "CreateGrant", states: granting, foreign: true}
	actionDecrypt                   = action{permission: "Decrypt", states: cryptographic, foreign: true, aliases: true, usage: EncryptDecrypt}
	actionDeleteAlias               = action{permission: "DeleteAlias", states: anyState}
	actionDeleteImportedKeyMaterial = action{permission: "DeleteImportedKeyMaterial", states: unimporting}
	actionDeriveSharedSecret        = action{permission: "DeriveSharedSecret", states: cryptographic, foreign: true, aliases: true, usage: KeyAgreement}
	actionDescribeKey               = action{permission: "DescribeKey", states: anyState, foreign: true, aliases: true}
	actionDisableKey                = action{permission: "DisableKey", states: toggling}
	actionDisableKeyRotation        = action{permission: "DisableKeyRotation", states: autoRotating}
	actionEnableKey                 = action{permission: "EnableKey", states: toggling}
	actionEnableKeyRotation         = action{permission: "EnableKeyRotation", states: autoRotating}
	actionEncrypt                   = action{permission: "Encrypt", states: cryptographic, foreign: true, aliases: true, usage: EncryptDecrypt}
	actionGenerateDataKey           = action{permission: "GenerateDataKey", states: cryptographic, foreign: true, aliases: true, usage: EncryptDecrypt}
	actionGenerateDataKeyBlind      = action{permission: "GenerateDataKeyWithoutPlaintext", states: cryptographic, foreign: true, aliases: true, usage: EncryptDecrypt}
	actionGenerateDataKeyPair       = action{permission: "GenerateDataKeyPair", states: cryptographic, foreign: true, aliases: true, usage: EncryptDecrypt}
	actionGenerateDataKeyPairBlind  = action{permission: "GenerateDataKeyPairWithoutPlaintext", states: cryptographic, foreign: true, aliases: true, usage: EncryptDecrypt}
	actionGenerateMac               = action{permission: "GenerateMac", states: cryptographic, foreign: true, aliases: true, usage: GenerateVerifyMac}
	actionGetKeyLastUsage           = action{permission: "GetKeyLastUsage", states: anyState}
	actionGetKeyPolicy              = action{permission: "GetKeyPolicy", states: anyState}
	actionGetKeyRotationStatus      = action{permission: "GetKeyRotationStatus", states: rotationStatus, foreign: true}
	actionGetParametersForImport    = action{permission: "GetParametersForImport", states: importPreparing}
	actionGetPublicKey              = action{permission: "GetPublicKey", states: cryptographic, foreign: true, aliases: true}
	actionImportKeyMaterial         = action{permission: "ImportKeyMaterial", states: importing}
	actionListAliases               = action{permission: "ListAliases", states: anyState}
	actionListGrants                = action{permission: "ListGrants", states: anyState, foreign: true}
	actionListKeyPolicies           = action{permission: "ListKeyPolicies", states: anyState}
	actionListKeyRotations          = action{permission: "ListKeyRotations", states: anyState}
	actionListResourceTags          = action{permission: "ListResourceTags", states: anyState}
	actionPutKeyPolicy              = action{permission: "PutKeyPolicy", states: anyState}
	actionReEncryptFrom             = action{permission: "ReEncryptFrom", states: cryptographic, foreign: true, aliases: true, usage: EncryptDecrypt}
	actionReEncryptTo               = action{permission: "ReEncryptTo", states: cryptographic, foreign: true, aliases: true, usage: EncryptDecrypt}
	actionRetireGrant               = action{permission: "RetireGrant", states: anyState, foreign: true}
	actionRevokeGrant               = action{permission: "RevokeGrant", states: anyState, foreign: true}
	actionRotateKeyOnDemand         = action{permission: "RotateKeyOnDemand", states: rotatingNow}
	actionScheduleKeyDeletion       = action{permission: "ScheduleKeyDeletion", states: scheduling}
	actionSign                      = action{permission: "Sign", states: cryptographic, foreign: true, aliases: true, usage: SignVerify}
	actionTagResource               = action{permission: "TagResource", states: unlessDying}
	actionUntagResource             = action{permission: "UntagResource", states: unlessDying}
	actionUpdateAlias               = action{permission: "UpdateAlias", states: unlessDying}
	actionUpdateKeyDescription      = action{permission: "UpdateKeyDescription", states: unlessDying}
	actionVerify                    = action{permission: "Verify", states: cryptographic, foreign: true, aliases: true, usage: SignVerify}
	actionVerifyMac                 = action{permission: "VerifyMac", states: cryptographic, foreign: true, aliases: true, usage: GenerateVerifyMac}
)
